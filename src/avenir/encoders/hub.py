"""Public encoders, frozen: DINO, DINOv2, DINOv3, V-JEPA 2 and SigLIP, through transformers.

Knows where each family keeps its patches, what pixels it wants and how to tell it the size of a
frame. Their weights stay where they are: a folder names them by their sha256.

Groups of frames do not meet: V-JEPA 2 sees every group, its tubelet of two frames, as a clip of its
own, and none of the motion between groups. DINO: 2104.14294, 2304.07193 (registers: 2309.16588),
2508.10104. V-JEPA 2: 2506.09985. SigLIP: 2303.15343.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from einops import rearrange
from huggingface_hub import snapshot_download
from jaxtyping import Float
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import interpolate
from transformers.utils import logging

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


class Hub(Encoder):
    """`b T C H W -> b t c h w`: the patch tokens of a frozen model; cannot decode."""

    Config = HubConfig
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: HubConfig) -> None:
        folder = _folder(config.model)
        family = _family(folder, config.model)
        model = _loaded(folder, family, config.model)
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
        self.sha256 = _sha256(folder)
        # Kept out of the module: public weights are not this encoder's to save, count or train.
        self._public = [model.requires_grad_(False).eval()]
        for name, value in zip(("pixel_mean", "pixel_std"), _colours(folder, family), strict=True):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

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

    def get_extra_state(self) -> Tensor:
        """Return what stands for the public weights in a saved folder: their sha256, 32 bytes."""
        return torch.tensor(list(bytes.fromhex(self.sha256)), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Check that the public weights are those that were saved by name."""
        saved = bytes(state.tolist()).hex()
        if saved != self.sha256:
            raise AvenirError(
                f"the weights of {self.config.model!r} have changed: sha256 {saved[:12]}… is "
                f"expected, {self.sha256[:12]}… is there: put the former back, or set "
                "encoder.model in card.json to a folder that holds them"
            )

    def _apply(self, fn: Any, recurse: bool = True) -> "Hub":
        self._public[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def _layers(self, groups: Float[Tensor, "n f C H W"]) -> list[Float[Tensor, "n s c"]]:
        """Return the last layers under the last norm: tokens of patches last."""
        model, count = self._public[0], self.config.layers
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


# Finding and opening ------------------------------------------------------------------------------


def _folder(name: str) -> Path:
    """Find a model on this machine, and only when it is not there on the hub."""
    local = Path(name).expanduser()
    if local.is_dir():
        return local
    wanted = ["*.json", "*.safetensors"]
    try:
        cached = Path(snapshot_download(name, local_files_only=True, allow_patterns=wanted))
        if any(cached.glob("*.safetensors")):
            return cached
    except (OSError, ValueError):
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # a network fails in many ways; each means that there is no model
        raise AvenirError(
            f"the model {name!r} is no folder, is not in the cache of the Hugging Face hub, and "
            f"could not be fetched ({type(error).__name__}): set encoder.model to a folder that "
            "`save_pretrained` wrote, or to a name that `hf download` has fetched (after `hf auth "
            "login`, where a licence must be accepted)"
        ) from None


def _family(folder: Path, name: str) -> Family:
    """Tell the family from config.json."""
    try:
        kind = json.loads((folder / "config.json").read_text())["model_type"]
    except (OSError, ValueError, KeyError):
        kind = None
    if kind is None or not any(folder.glob("*.safetensors")):
        raise AvenirError(
            f"{name!r} holds no model: it needs config.json, which says the model's type, and its "
            "weights as safetensors: give a folder that `save_pretrained` wrote"
        )
    if kind not in FAMILIES:
        raise AvenirError(
            f"{name!r} is a model of type {kind!r}: give one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind]


def _loaded(folder: Path, family: Family, name: str) -> Any:
    """Open the model in single precision; a weight that is missing is never drawn at random."""
    try:
        with _silence():
            model, found = getattr(transformers, family.model).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **family.build,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise AvenirError(f"the model {name!r} is damaged: {error}; fetch it again") from None
    if found["missing_keys"]:
        raise AvenirError(
            f"the model {name!r} lacks {', '.join(sorted(found['missing_keys'])[:3])}: its weights "
            "do not fit its config.json; fetch both again"
        )
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers from reporting what it skips, such as the text tower of SigLIP."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _colours(folder: Path, family: Family) -> tuple[list[float], list[float]]:
    """Return mean and deviation of the pixels the model was trained on."""
    said: dict[str, list[float]] = {}
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        if (folder / name).is_file():
            said = json.loads((folder / name).read_text())
    return said.get("image_mean", list(family.mean)), said.get("image_std", list(family.std))


def _sha256(folder: Path) -> str:
    """Hash the weights as they lie in the folder: of one file, the hash that its hub page shows."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while piece := file.read(1 << 24):
                digest.update(piece)
    return digest.hexdigest()
