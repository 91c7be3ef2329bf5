"""V-JEPA on the user's own video: a vision transformer that learns by saying what it cannot see.

A student sees some places of a clip. From what it makes of them a predictor says what the teacher,
the student's own average that sees everything, finds at the hidden places (V-JEPA, 2404.08471;
V-JEPA 2, 2506.09985) and at the visible ones (V-JEPA 2.1, 2603.14482). Hidden are large blocks
through the whole clip, and whole later frames, so that motion must be predicted. Student and
teacher look at each latent frame alone; only the predictor, which serves training and nothing else,
looks across time. Latents are the features of tubelets. It cannot decode.
"""

import copy
from typing import Annotated, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import instance_norm

from avenir.clip import Batch, Progress
from avenir.config import Config
from avenir.encoders import Encoder, ParameterGroup, Posterior, padded
from avenir.errors import AvenirError
from avenir.losses.distillation import follow
from avenir.nn.attention import grid_positions, rotation
from avenir.nn.vit import ViT, ViTBlock, at, take
from avenir.shapes import Compression, Video

Tubelets = Float[Tensor, "b t f H W"]
"""Groups of frames, the channels of all frames of a group stacked."""


class VJEPAWeights(Config):
    """What each loss counts."""

    hidden: float = 1.0
    """Mean absolute error of what is predicted for hidden places."""
    visible: float = 0.5
    """The same of visible places, the less the farther from hidden ones; without it features of
    short runs lie in few directions."""


class VJEPAConfig(Config):
    """The self-supervised video encoder."""

    kind: str = "vjepa"
    group: int = Field(2, ge=1)
    """Frames that are seen together, as one latent frame."""
    patch: int = Field(8, ge=1)
    """Rows and columns of a patch."""
    width: int = Field(128, ge=16)
    """Width of the transformer, and channels of the features."""
    depth: int = Field(4, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads, of the predictor as well."""
    predictor_width: int = Field(64, ge=16)
    """Width of the predictor."""
    predictor_depth: int = Field(2, ge=1)
    """Its blocks."""
    masks: tuple[
        tuple[Annotated[int, Field(ge=1, le=1024)], Annotated[float, Field(gt=0, lt=1)]], ...
    ] = Field(((8, 0.65), (2, 0.8)), min_length=1)
    """Masks, all used in every step: how many blocks hide places in all frames, and what share."""
    later: float = Field(0.5, ge=0, lt=1)
    """Share of the latent frames, the last ones, that one more mask hides whole; 0: none."""
    momentum: float = Field(0.996, ge=0, lt=1)
    """Decay of the teacher."""
    weights: VJEPAWeights = VJEPAWeights()
    """What each loss counts."""


class VisiblePlaces(NamedTuple):
    """What the student sees: some places, in each of the first frames."""

    places: Int[Tensor, "b m"]
    num_frames: int


class VJEPA(Encoder):
    """`b T C H W -> b t d h w`: the normalised features of every tubelet."""

    Config = VJEPAConfig

    def __init__(self, config: VJEPAConfig) -> None:
        compression = Compression(config.group, config.patch, config.patch)
        super().__init__(compression, config.width)
        self.config = config
        self.student = ViT(config.patch, config.width, config.depth, config.heads, config.group)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.predictor = PlacePredictor(config)

    def raw_posterior(self, video: Video) -> Posterior:
        """Return what the student sees in each tubelet; once trained its weights are an average."""
        h = video.shape[-2] // self.config.patch
        features = seen(self.student, self.tubelets(video))
        return Posterior(rearrange(features, "b t (h w) d -> b t d h w", h=h))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Show some places, ask for all, and compare with what the teacher finds there."""
        assert batch.video is not None
        video = padded(batch.video, self.compression)
        t, h, w = grid = self.compression.latent_shape(video.shape[1], *video.shape[3:])
        masks = self.masks(len(video), grid, progress.generator)
        tubelets = self.tubelets(video)
        targets = self.targets(tubelets)
        where = grid_positions(t, h, w).to(video.device)
        hidden_errors, visible_errors = [], []
        for shown in masks:
            visible, hidden = visible_and_hidden(shown, t, h * w)
            context = seen(self.student, tubelets[:, : shown.num_frames], shown.places)
            of_visible, of_hidden = self.predictor(context.flatten(1, 2), visible, hidden, where)
            hidden_errors.append((of_hidden - take(targets, hidden)).abs().mean())
            nearest = torch.cdist(where[visible], where[hidden]).amin(-1, keepdim=True)
            errors = (of_visible - take(targets, visible)).abs() / nearest.sqrt()
            visible_errors.append(errors.mean())
        return {
            "hidden": torch.stack(hidden_errors).mean(),
            "visible": torch.stack(visible_errors).mean(),
        }

    @torch.no_grad()
    def targets(self, tubelets: Tubelets) -> Float[Tensor, "b n d"]:
        """Return what the teacher finds everywhere, each channel normalised over the clip."""
        return over_the_clip(seen(self.teacher, tubelets))

    def masks(
        self, num_clips: int, grid: tuple[int, int, int], generator: torch.Generator
    ) -> list[VisiblePlaces]:
        """Draw what is shown under every mask: blocks through all frames, then whole frames."""
        t, h, w = grid
        if h * w < 2:
            raise AvenirError(
                f"the frames are one patch of {self.config.patch}×{self.config.patch} pixels; some "
                "places must be shown and others hidden: give larger frames, or set a smaller "
                "encoder.patch"
            )
        masks = [
            VisiblePlaces(shown_places(num_blocks, share, (h, w), num_clips, generator), t)
            for num_blocks, share in self.config.masks
        ]
        num_later = int(t * self.config.later)
        if num_later:
            everywhere = torch.arange(h * w, device=generator.device).expand(num_clips, -1)
            masks.append(VisiblePlaces(everywhere, t - num_later))
        return masks

    def parameter_groups(self) -> list[ParameterGroup]:
        """Train student and predictor; the teacher follows."""
        learnt = [*self.student.parameters(), *self.predictor.parameters()]
        return [ParameterGroup(learnt, self.config.weights.model_dump())]

    def after_step(self, progress: Progress) -> None:
        """Move the teacher toward the student."""
        follow(self.teacher, self.student, self.config.momentum)

    def tubelets(self, video: Video) -> Tubelets:
        """Stack the frames of each group as channels."""
        return rearrange(video, "b (t f) C H W -> b t (f C) H W", f=self.config.group)


class PlacePredictor(nn.Module):
    """A small transformer over space and time: features of visible places to those of all."""

    def __init__(self, config: VJEPAConfig) -> None:
        super().__init__()
        width = config.predictor_width
        self.head_dim = width // config.heads
        self.proj_in = nn.Linear(config.width, width)
        self.unknown = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(
            ViTBlock(width, config.heads) for _ in range(config.predictor_depth)
        )
        self.norm, self.proj_out = nn.LayerNorm(width), nn.Linear(width, config.width)

    def forward(
        self,
        context: Float[Tensor, "b m d"],
        visible: Int[Tensor, "b m"],
        hidden: Int[Tensor, "b n"],
        where: Float[Tensor, "s 3"],
    ) -> tuple[Float[Tensor, "b m d"], Float[Tensor, "b n d"]]:
        """Say what is at `visible` and `hidden` places; `where` all places are in t, h, w."""
        unknown = self.unknown.expand(*hidden.shape, -1)
        x = torch.cat([self.proj_in(context), unknown], dim=1)
        angles = at(rotation(where, self.head_dim), torch.cat([visible, hidden], dim=1))
        for block in self.blocks:
            x = block(x, angles)
        output = self.proj_out(self.norm(x))
        return output[:, : visible.shape[1]], output[:, visible.shape[1] :]


def seen(
    network: ViT, tubelets: Tubelets, places: Int[Tensor, "b m"] | None = None
) -> Float[Tensor, "b t s d"]:
    """Return the features of all places, or of each row's own, every latent frame by itself."""
    b, t = tubelets.shape[:2]
    keep = None if places is None else repeat(places, "b m -> (b t) m", t=t)
    return network(tubelets.flatten(0, 1), keep=keep)[1].unflatten(0, (b, t))


def over_the_clip(features: Float[Tensor, "b t s d"]) -> Float[Tensor, "b n d"]:
    """Give every channel mean 0 and variance 1 over the places of each clip (data2vec, 2202.03555).

    What all places share, such as colours, can be told from any of them: features would be little
    else, since nothing is easier to predict.
    """
    return instance_norm(rearrange(features, "b t s d -> b d (t s)"), eps=1e-4).mT


def visible_and_hidden(
    shown: VisiblePlaces, num_frames: int, num_places: int
) -> tuple[Int[Tensor, "b m"], Int[Tensor, "b n"]]:
    """Number the places of all frames in reading order; return those shown, then the others."""
    first = num_places * torch.arange(shown.num_frames, device=shown.places.device)
    visible = (first[:, None] + shown.places[:, None]).flatten(1)
    others = torch.ones(len(visible), num_frames * num_places, device=visible.device)
    return visible, others.scatter_(1, visible, 0).nonzero()[:, 1].view(len(visible), -1)


def shown_places(
    num_blocks: int,
    share: float,
    size: tuple[int, int],
    num_clips: int,
    generator: torch.Generator,
) -> Int[Tensor, "b m"]:
    """Draw the places of `h × w` that blocks leave visible, equally many in every clip.

    Blocks stand about random centres, 0.75 to 1.5 times as high as wide, and grow together until
    they hide `share` of the places.
    """
    h, w = size

    def uniform(*shape: int) -> Tensor:
        return torch.rand(num_clips, *shape, generator=generator, device=generator.device)

    where = grid_positions(1, h, w)[:, 1:].to(generator.device) + 0.5
    centres = uniform(num_blocks, 2) * torch.tensor([h, w], device=generator.device)
    root = (0.75 * 2 ** uniform(1, 1)).sqrt()
    sides = torch.cat([root, 1 / root], dim=-1)
    away = ((where[:, None] - centres[:, None]).abs() / sides[:, None]).amax(-1).amin(-1)
    num_hidden = min(max(round(share * h * w), 1), h * w - 1)
    return away.argsort(dim=1)[:, num_hidden:]
