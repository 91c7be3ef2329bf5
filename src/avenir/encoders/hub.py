"""Public encoders, frozen: DINO, DINOv2, DINOv3, V-JEPA 2 and SigLIP, through transformers.

Knows where each family keeps its patches, what pixels it wants and how to tell it the size of a
frame. Their weights stay where they are: a folder names them by their sha256.

Groups of frames do not meet: V-JEPA 2 sees every group, its tubelet of two frames, as a clip of its
own, and none of the motion between groups. DINO: 2104.14294, 2304.07193 (registers: 2309.16588),
2508.10104. V-JEPA 2: 2506.09985. SigLIP: 2303.15343.
"""

import json
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from avenir import hub
from avenir.clip import Batch, Progress
from avenir.config import Config
from avenir.encoders import Encoder, ParameterGroup, Posterior
from avenir.errors import AvenirError
from avenir.shapes import Compression, Video


class Family(NamedTuple):
    """What sets one family of models apart."""

    model: str
    """Its class in transformers."""
    norm: str
    """Where its last norm is: the library gives hidden layers without it."""
    build: dict[str, Any] = {}
    """What building it is told."""
    call: dict[str, Any] = {}
    """What calling it is told."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Mean colour of its pixels in [0, 1], when its folder says nothing; ImageNet's."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Their deviation."""


_ANY_SIZE = {"interpolate_pos_encoding": True}
_SIGLIP = Family("SiglipVisionModel", "post_layernorm", {}, _ANY_SIZE, (0.5,) * 3, (0.5,) * 3)
FAMILIES = {
    "vit": Family("ViTModel", "layernorm", {"add_pooling_layer": False}, _ANY_SIZE),
    "dinov2": Family("Dinov2Model", "layernorm"),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel", "layernorm"),
    "dinov3_vit": Family("DINOv3ViTModel", "norm"),
    "dinov3_convnext": Family("DINOv3ConvNextModel", "layer_norm"),
    "vjepa2": Family("VJEPA2Model", "encoder.layernorm"),
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
}
"""By the `model_type` of a model's config.json."""


class HubConfig(Config):
    """A public encoder."""

    kind: str = "hub"
    model: str
    """A folder that `save_pretrained` wrote, or a name on the Hugging Face hub."""
    block: int | None = Field(None, ge=1)
    """Rows and columns of a frame per latent: frames are resized until a patch of the model covers
    them. None: as many as a patch has."""
    layers: int = Field(1, ge=1)
    """Latents are the mean of so many last layers, each under the model's last norm."""


class Hub(hub.Frozen, Encoder):
    """`b T C H W -> b t c h w`: the patch tokens of a frozen model; cannot decode."""

    Config = HubConfig
    setting = "`model` of encoder kind 'hub'"
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: HubConfig) -> None:
        folder = hub.folder_of(config.model, self.setting)
        family = FAMILIES[hub.type_of(folder, config.model, FAMILIES)]
        model = hub.opened(folder, family.model, config.model, **family.build)
        patch, channels, num_layers = _sizes(model.config)
        if config.layers > num_layers:
            raise AvenirError(
                f"layers={config.layers} was given; {config.model!r} has {num_layers} of the size "
                f"of its last: give 1 to {num_layers}"
            )
        block = config.block or patch
        f_t = getattr(model.config, "tubelet_size", 1)
        super().__init__(Compression(f_t, block, block), channels)
        self.config, self.family, self.patch = config, family, patch
        self.keep(model, config.model, hub.weights_in(folder))
        mean, std = _colours(folder, family, config.model)
        self.register_buffer("pixel_mean", mean[:, None, None], persistent=False)
        self.register_buffer("pixel_std", std[:, None, None], persistent=False)

    def raw_posterior(self, video: Video) -> Posterior:
        """Return the tokens of patches, those of no place (class, registers) left out."""
        h, w = video.shape[-2] // self.compression.h, video.shape[-1] // self.compression.w
        frames = rearrange(video, "b T C H W -> (b T) C H W")
        if self.patch != self.compression.h:
            size = (h * self.patch, w * self.patch)
            frames = interpolate(frames, size, mode="bilinear", antialias=True)
        pixels = ((frames + 1) / 2 - self.pixel_mean) / self.pixel_std
        groups = rearrange(pixels, "(n f) C H W -> n f C H W", f=self.compression.t)
        tokens = torch.stack(self._layers(groups)).mean(0)[:, -h * w :]
        return Posterior(rearrange(tokens, "(b t) (h w) c -> b t c h w", b=len(video), h=h))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Refuse: its weights are public and stay as they are."""
        raise self._frozen()

    def parameter_groups(self) -> list[ParameterGroup]:
        """Train nothing: its weights are public and stay as they are."""
        return []

    def _layers(self, groups: Float[Tensor, "n f C H W"]) -> list[Float[Tensor, "n s c"]]:
        """Return the last layers under the last norm: tokens of patches last."""
        model, count = self.public, self.config.layers
        if model.config.model_type == "vjepa2":
            hidden = _clip_layers(model, groups)
        else:
            several = count > 1
            seen = model(groups[:, 0], output_hidden_states=several, **self.family.call)
            if not several:
                return [seen.last_hidden_state]
            hidden = seen.hidden_states
        norm = attrgetter(self.family.norm)(model)
        return [norm(layer) for layer in hidden[-count:]]

    def _frozen(self) -> AvenirError:
        return AvenirError(
            f"the public encoder {self.config.model!r} was to be trained; its weights stay as they "
            "are: train another kind, such as 'kl', or use it as a teacher"
        )


def _clip_layers(model: Any, clips: Float[Tensor, "n f C H W"]) -> list[Float[Tensor, "n s c"]]:
    """Run the layers of V-JEPA 2, every token told its own row and column.

    Left alone the library takes them from the frame size of training: at any other, tokens of one
    row would be counted into several. Here they are numbered on a square that holds the frame.
    """
    patch = model.config.patch_size
    h, w = clips.shape[-2] // patch, clips.shape[-1] // patch
    side = max(h, w)
    places = torch.arange(side * side, device=clips.device).view(side, side)[:h, :w].flatten()
    layers = [model.encoder.embeddings(clips)]
    for layer in model.encoder.layer:
        layer.attention.grid_size = side
        layers.append(layer(layers[-1], places[None])[0])
    return layers


def _sizes(config: Any) -> tuple[int, int, int]:
    """Return a model's patch, its channels and how many layers are as large as the last."""
    if config.model_type == "dinov3_convnext":
        return 2 * 2 ** len(config.hidden_sizes), config.hidden_sizes[-1], 1
    return config.patch_size, config.hidden_size, config.num_hidden_layers


def _colours(folder: Path, family: Family, name: str) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the pixels the model was trained on, one for each colour.

    Raises AvenirError when its folder says them and they are none.
    """
    colours = torch.tensor([family.mean, family.std], device="cpu")
    for path in (folder / "preprocessor_config.json", folder / "video_preprocessor_config.json"):
        if not path.is_file():
            continue
        try:
            processor = {
                "image_mean": family.mean,
                "image_std": family.std,
                **json.loads(path.read_text()),
            }
            colours = torch.tensor(
                [processor["image_mean"], processor["image_std"]], dtype=torch.float32, device="cpu"
            )
            usable = colours.shape == (2, 3) and bool((colours[1] > 0).all())
        except (OSError, ValueError, TypeError, RuntimeError):
            usable = False
        if not usable or not colours.isfinite().all():
            raise AvenirError(
                f"{name!r} has a damaged {path.name}: image_mean and image_std are three numbers "
                "each, the latter above 0; fetch it again"
            )
    return colours[0], colours[1]
