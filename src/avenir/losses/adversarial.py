"""A critic of small patches of video, and the hinge losses of the game against it.

PatchGAN (Isola et al. 2016, 1611.07004) with hinge losses (1705.02894); spectral norm (1802.05957)
keeps the critic's slope bounded, as in GAIA-2's decoder stage. Weights and timing are the kind's.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.utils.parametrizations import spectral_norm

from avenir.shapes import Video


class Critic(nn.Module):
    """Score patches of frames with their neighbours in time, `b T C H W -> b 1 t h w`."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming = 3
        for outgoing in (width, 2 * width, 4 * width):
            conv = nn.Conv3d(incoming, outgoing, (3, 4, 4), stride=(1, 2, 2), padding=1)
            layers += [spectral_norm(conv), nn.LeakyReLU(0.2)]
            incoming = outgoing
        layers.append(spectral_norm(nn.Conv3d(incoming, 1, (3, 3, 3), padding=1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, video: Video) -> Float[Tensor, "b 1 t h w"]:
        """Score every patch: high is real."""
        return self.layers(rearrange(video, "b t c h w -> b c t h w"))


def critic_loss(critic: Critic, decoded: Video, video: Video) -> Float[Tensor, ""]:
    """Push real patches above 1 and decoded ones below -1; the decoder is left alone."""
    return (relu(1 - critic(video)) + relu(1 + critic(decoded.detach()))).mean()


def adversarial(critic: Critic, decoded: Video) -> Float[Tensor, ""]:
    """Raise the critic's score of decoded patches."""
    return -critic(decoded).mean()
