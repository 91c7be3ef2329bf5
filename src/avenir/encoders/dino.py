"""DINO on the user's own video: a vision transformer that learns without labels.

A student agrees with its own average, the teacher: on what a frame is over crops of it (DINO,
2104.14294), on what patches are, hidden ones (iBOT, 2111.07832) and those it sees in other colours;
its frames spread apart (KoLeo; DINOv2, 2304.07193), and late in training its patches related as
they were earlier (Gram anchoring; DINOv3, 2508.10104). Every term has a weight; 0 leaves it out.
Where `frames` is more than 1, a patch is as deep as a few successive frames, and "frame" below
means such a group: what moves is seen by its motion, which no change of colours hides. Latents are
the features of patches. It cannot decode.
"""

import copy
import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, normalize

from avenir.augmentation import Images, jittered
from avenir.clip import Batch, Progress
from avenir.config import Config
from avenir.encoders import Encoder, ParameterGroup, Posterior
from avenir.errors import AvenirError
from avenir.losses.distillation import agreement, centred, follow, gram, koleo, sinkhorn
from avenir.nn.vit import ViT
from avenir.shapes import Compression, Video

_CENTRE_RATE = 0.1
"""How fast running means of scores move."""


class DINOWeights(Config):
    """What each loss counts."""

    image: float = 1.0
    """Agreement on whole frames over crops: DINO."""
    patch: float = 1.0
    """Agreement on patches, hidden or in other colours: iBOT, asked everywhere."""
    koleo: float = 0.1
    """Frames of a batch apart from each other."""
    gram: float = 0.0
    """Patches related as the anchor finds them, from `gram_from` on."""


class DINOConfig(Config):
    """The self-supervised image encoder."""

    kind: str = "dino"
    frames: int = Field(1, ge=1)
    """Successive frames in a patch."""
    patch: int = Field(8, ge=1)
    """Rows and columns of a patch."""
    width: int = Field(128, ge=16)
    """Width of the transformer, and channels of the features."""
    depth: int = Field(4, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    blocks: tuple[int, ...] = ()
    """Blocks whose features of a patch, side by side, are its latent; none: the last alone, which
    training asks to forget colours and exact places."""
    num_prototypes: int = Field(128, ge=2)
    """Prototypes that frames, and patches, are assigned to."""
    bottleneck: int = Field(64, ge=2)
    """Width of the unit vectors that are compared with prototypes."""
    num_local: int = Field(1, ge=0, le=64)
    """Small crops per frame, half as high and wide, that only the student sees."""
    global_scale: tuple[float, float] = (0.4, 1.0)
    """Least and most share of a frame that a large crop shows."""
    local_scale: tuple[float, float] = (0.1, 0.4)
    """The same of small crops."""
    colour: float = Field(0.4, ge=0)
    """How far colours of every view are mixed and shifted at random."""
    hidden: tuple[float, float] = (0.1, 0.5)
    """Least and most share of patches hidden from the student, in half of its large crops."""
    momentum: float = Field(0.99, ge=0, lt=1)
    """Decay of the teacher at first; it rises to 1 along a cosine."""
    student_temperature: float = Field(0.1, gt=0)
    """Softmax of the student."""
    teacher_temperature: float = Field(0.05, gt=0)
    """Sharpness of the teacher's targets before they are balanced."""
    balance: Literal["sinkhorn", "centre"] = "sinkhorn"
    """What keeps targets from being all the same: every prototype used equally in a batch (DINOv2),
    or scores taken about their running mean (DINO)."""
    gram_from: float = Field(0.5, ge=0, le=1)
    """Share of training after which the Gram anchor, the teacher of that moment, holds patches."""
    weights: DINOWeights = DINOWeights()
    """What each loss counts."""


class DINO(Encoder):
    """`b T C H W -> b t d h w`: the normalised features of every patch."""

    Config = DINOConfig
    frame_centre: Tensor
    patch_centre: Tensor

    def __init__(self, config: DINOConfig) -> None:
        compression = Compression(config.frames, config.patch, config.patch)
        blocks = config.blocks or (config.depth,)
        if not set(blocks) <= set(range(1, config.depth + 1)):
            raise AvenirError(
                f"encoder.blocks is {list(blocks)} and the transformer has {config.depth} "
                "blocks, counted from 1: name some of them"
            )
        super().__init__(compression, config.width * len(blocks))
        self.config, self.blocks = config, blocks
        self.student = _Network(config)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("frame_centre", torch.zeros(config.num_prototypes))
        self.register_buffer("patch_centre", torch.zeros(config.num_prototypes))
        self.anchor = None
        if config.weights.gram:
            self.anchor = copy.deepcopy(self.student.backbone).requires_grad_(False)

    def raw_posterior(self, video: Video) -> Posterior:
        """Return what the student sees in each patch; once trained its weights are an average."""
        p = self.config.patch
        h = video.shape[-2] // p
        patches = self.student.backbone.levels(self._stacked(video), self.blocks)
        features = rearrange(patches, "(b t) (h w) d -> b t d h w", b=len(video), h=h)
        return Posterior(features)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Show crops to student and teacher and compare what they say."""
        assert batch.video is not None
        config, generator = self.config, progress.generator
        frames = self._stacked(batch.video)
        height, width = (config.patch * (size // config.patch) for size in frames.shape[-2:])
        views = [crop(frames, (height, width), config.global_scale, generator) for _ in range(2)]
        views = torch.cat(views)
        small = (_half(height, config.patch), _half(width, config.patch))
        local = [
            crop(frames, small, config.local_scale, generator) for _ in range(config.num_local)
        ]
        num_patches = height * width // config.patch**2
        hide = hidden_patches(len(views), num_patches, config.hidden, generator)
        with torch.no_grad():
            frame_targets, patch_targets, _, _ = self.teacher(self._coloured(views, generator))
        seen = self._coloured(views, generator)
        frame_scores, patch_scores, whole, patches = self.student(seen, hide)
        scores = list(frame_scores.chunk(2))
        if local:
            scores += self.student(self._coloured(torch.cat(local), generator))[0].chunk(len(local))
        losses = {
            "image": self._image(scores, frame_targets),
            "patch": self._patch(patch_scores.flatten(0, 1), patch_targets.flatten(0, 1)),
            "koleo": torch.stack([koleo(view) for view in whole.chunk(2)]).mean(),
        }
        if self.anchor is not None and progress.fraction >= config.gram_from:
            with torch.no_grad():
                _, held = self.anchor(seen)
            losses["gram"] = gram(patches, held)
        return losses

    def parameter_groups(self) -> list[ParameterGroup]:
        """Train the student; teacher and anchor follow."""
        return [ParameterGroup(list(self.student.parameters()), self.config.weights.model_dump())]

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Move the teacher toward the student, and set the anchor when its time has come."""
        rising = (1 - math.cos(math.pi * progress.fraction)) / 2
        momentum = self.config.momentum + (1 - self.config.momentum) * rising
        follow(self.teacher, self.student, momentum)
        begins = math.ceil(self.config.gram_from * progress.steps)
        if self.anchor is not None and progress.step + 1 == begins:
            self.anchor.load_state_dict(self.teacher.backbone.state_dict())

    def _image(
        self, scores: list[Float[Tensor, "n v"]], teacher_scores: Float[Tensor, "m v"]
    ) -> Float[Tensor, ""]:
        """Ask every view of the student for what the teacher says of each *other* large view."""
        config = self.config
        targets = self._targets(teacher_scores, self.frame_centre).chunk(2)
        terms = [
            agreement(ours, target, config.student_temperature)
            for i, target in enumerate(targets)
            for j, ours in enumerate(scores)
            if i != j
        ]
        return torch.stack(terms).mean()

    def _patch(
        self, scores: Float[Tensor, "n v"], teacher_scores: Float[Tensor, "n v"]
    ) -> Float[Tensor, ""]:
        targets = self._targets(teacher_scores, self.patch_centre)
        return agreement(scores, targets, self.config.student_temperature)

    @torch.no_grad()
    def _targets(
        self, scores: Float[Tensor, "n v"], centre: Float[Tensor, " v"]
    ) -> Float[Tensor, "n v"]:
        if self.config.balance == "sinkhorn":
            return sinkhorn(scores, self.config.teacher_temperature)
        targets = centred(scores, centre, self.config.teacher_temperature)
        centre.lerp_(scores.mean(0), _CENTRE_RATE)
        return targets

    def _stacked(self, video: Video) -> Float[Tensor, "n fC H W"]:
        """Stack the frames of each group as channels."""
        return rearrange(video, "b (t f) C H W -> (b t) (f C) H W", f=self.config.frames)

    def _coloured(self, images: Images, generator: torch.Generator) -> Images:
        """Change the colours of a group alike in all of its frames."""
        groups = images.unflatten(1, (self.config.frames, 3))
        return jittered(groups, self.config.colour, generator).flatten(1, 2)


class _Network(nn.Module):
    """A backbone and two heads: images to scores and features of frames and patches."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.backbone = ViT(config.patch, config.width, config.depth, config.heads, config.frames)
        self.frame_head, self.patch_head = _Head(config), _Head(config)

    def forward(
        self, images: Images, hide: Bool[Tensor, "n s"] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scores `n v` and `n s v`, then features `n d` and `n s d`."""
        whole, patches = self.backbone(images, hide)
        return self.frame_head(whole), self.patch_head(patches), whole, patches


class _Head(nn.Module):
    """Features to cosines with prototypes."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.width, 2 * config.width),
            nn.GELU(),
            nn.Linear(2 * config.width, config.bottleneck),
        )
        self.prototypes = nn.Parameter(torch.randn(config.num_prototypes, config.bottleneck))

    def forward(self, features: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Compare directions."""
        return normalize(self.layers(features), dim=-1) @ normalize(self.prototypes, dim=-1).T


def crop(
    images: Images,
    size: tuple[int, int],
    scale: tuple[float, float],
    generator: torch.Generator,
) -> Float[Tensor, "n C h w"]:
    """Cut a part of each image, its share of the area drawn from `scale`, half of them mirrored."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, len(images), generator=generator, device=images.device)

    low, high = scale
    side = (low + (high - low) * uniform()).sqrt()
    x, y = (1 - side) * (2 * uniform(2) - 1)
    mirror = torch.where(uniform() < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(side)
    rows = [torch.stack([side * mirror, zero, x]), torch.stack([zero, side, y])]
    grid = affine_grid(torch.stack(rows).permute(2, 0, 1), [*images.shape[:2], *size], False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def hidden_patches(
    num_images: int, num_patches: int, share: tuple[float, float], generator: torch.Generator
) -> Bool[Tensor, "n s"]:
    """Choose patches to hide in half of the images, their share drawn from `share`."""
    device = generator.device
    low, high = share
    each = low + (high - low) * torch.rand(num_images, 1, generator=generator, device=device)
    shown = torch.rand(num_images, 1, generator=generator, device=device) < 0.5
    shown[0] = False  # no batch without a hidden patch
    order = torch.rand(num_images, num_patches, generator=generator, device=device).argsort(dim=1)
    return (order < (each * num_patches).ceil()) & ~shown


def _half(size: int, patch: int) -> int:
    return max(patch, size // 2 // patch * patch)
