"""Tokenizers and predictors that train while more is asked of what is inside them.

A tokenizer's latents, or the tokens midway through a predictor, are drawn toward what a teacher
sees in the same video (losses/alignment.py); a tokenizer may be asked for the future as well. What
asks is thrown away at the end: the world that is saved is an ordinary one.
"""

import torch
from torch import Tensor, nn

from avenir.clip import Batch, Progress
from avenir.data import Source
from avenir.data.cached import Cached
from avenir.encoders import Encoder, ParameterGroup, Tokenizer, padded
from avenir.errors import AvenirError
from avenir.losses.alignment import Alignment, AlignmentConfig, balanced
from avenir.predictors import FeatureHook
from avenir.shapes import Compression, Latents, Video
from avenir.training.objectives import EncoderObjective, PredictorObjective
from avenir.training.recipe import Recipe
from avenir.world import World

_TERMS = {"directions": 1.0, "relations": 1.0, "local_correlation": 1.0}
"""What alignment adds to the losses; the terms come weighted."""


class AlignedEncoderObjective(EncoderObjective):
    """Train a tokenizer while more is asked of its latents."""

    def __init__(
        self,
        recipe: Recipe,
        data: Source,
        world: World,
        config: AlignmentConfig,
        teacher: Encoder | None,
    ) -> None:
        super().__init__(recipe, data, world)
        if not isinstance(world.encoder, Tokenizer):
            raise AvenirError(
                f"[alignment] was given for encoder {world.card.encoder['kind']!r}, which cannot "
                "decode; it is for tokenizers, such as kind 'kl'"
            )
        if config.layer is not None:
            raise AvenirError(
                f"alignment.layer is {config.layer} in a tokenizer's recipe; it says where to look "
                "into a predictor: leave it out"
            )
        self.tokenizer = world.encoder
        self.most_hidden = min(world.encoder.look_back, recipe.train.num_groups - 1)
        if config.future and not self.most_hidden:
            raise AvenirError(
                f"alignment.future is {config.future}, the encoder's look_back "
                f"{world.encoder.look_back} and train.num_groups {recipe.train.num_groups}; what "
                "is hidden at the end of a window is decoded from earlier latents: set "
                "encoder.look_back to at least 1 and train.num_groups to at least 2"
            )
        self.teacher = _frozen(teacher)
        own = world.encoder.compression, world.encoder.channels
        features = (None, None) if teacher is None else (teacher.compression, teacher.channels)
        self.alignment = Alignment(config, *own, *features)
        self.alignment.to(world.encoder.latent_mean.device)
        self.both = nn.ModuleDict({"encoder": world.encoder, "alignment": self.alignment})

    @property
    def trained(self) -> nn.Module:
        """Return the tokenizer and what aligns it."""
        return self.both

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Decode and align from the same latents; the teacher sees true colours."""
        batch = self._apart(batch)
        coloured = self._coloured(batch, progress).video
        assert batch.video is not None and coloured is not None
        video = padded(coloured, self.tokenizer.compression)
        posterior = self.tokenizer.raw_posterior(video)
        mean, aside = balanced(posterior.mean, self.alignment.share(progress))

        def hide(latents: Latents) -> Latents:
            return self.alignment.without_future(latents, self.most_hidden, progress)

        posterior = posterior._replace(mean=mean)
        losses = self.tokenizer.decoding_losses(posterior, video, progress, hide)
        features = _seen(self.teacher, batch.video)
        # What decoding draws comes first: with and without alignment it draws the same.
        return losses | self.alignment(aside, features, progress.generator)

    def groups(self) -> list[ParameterGroup]:
        """Ask the encoder, whose first group makes the latents and descends alignment as well.

        The padding that decoding finds in the place of hidden latents descends with that group.
        """
        first, *others = self.tokenizer.parameter_groups()
        padding = [] if self.alignment.padding is None else [self.alignment.padding]
        first = ParameterGroup([*first.parameters, *padding], first.weights | _TERMS)
        return [first, *others, *_projecting(self.alignment)]


class AlignedPredictorObjective(PredictorObjective):
    """Train a predictor while its tokens in the frames to predict are drawn toward a teacher.

    The teacher sees the frames as they truly are (REPA, 2410.06940).
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Source,
        world: World,
        config: AlignmentConfig,
        teacher: Encoder | None,
    ) -> None:
        super().__init__(recipe, data, world)
        if teacher is None or config.future or config.local_correlation:
            raise AvenirError(
                "[alignment] in a predictor's recipe needs a teacher, and asks neither for future "
                "nor for local_correlation, which are for tokenizers: name one with "
                "alignment.teacher, and leave the others out"
            )
        if recipe.train.cache_recordings != 0 or isinstance(data, Cached):
            raise AvenirError(
                "[alignment] in a predictor's recipe shows its teacher every window, and latents "
                "that were encoded once come without their frames: set train.cache_recordings to "
                "0, and give data that has frames"
            )
        self.layer = _layer(config.layer, self.predictor.depth)
        self.teacher = _frozen(teacher)
        f_t, f_h, f_w = world.encoder.compression
        patch, width = self.predictor.patch, self.predictor.width
        cell = Compression(f_t, patch * f_h, patch * f_w)
        features = teacher.compression, teacher.channels
        self.alignment = Alignment(config, cell, width, *features, mixed=True)
        self.alignment.to(world.encoder.latent_mean.device)
        self.both = nn.ModuleDict({"steered": self.steered, "alignment": self.alignment})

    @property
    def trained(self) -> nn.Module:
        """Return predictor, conditioner and what aligns them."""
        return self.both

    def losses(
        self, batch: Batch, progress: Progress, hook: FeatureHook | None = None
    ) -> dict[str, Tensor]:
        """Predict, and align the tokens midway by how much their frames count."""
        assert batch.video is not None
        aside: list[tuple[Tensor, Tensor]] = []

        def through(tokens: Tensor, counts: Tensor) -> Tensor:
            onward, twin = balanced(tokens, self.alignment.share(progress))
            aside.append((twin, counts))
            return onward

        losses = super().losses(batch, progress, FeatureHook(self.layer, through))
        [(tokens, counts)] = aside
        features = _seen(self.teacher, batch.video)
        # What prediction draws comes first: with and without alignment it draws the same.
        return losses | self.alignment(tokens, features, progress.generator, counts)

    def groups(self) -> list[ParameterGroup]:
        """Descend every loss with weight one; what is thrown away descends alignment only."""
        return [*super().groups(), *_projecting(self.alignment)]


def _layer(given: int | None, depth: int) -> int:
    """Return after which block to look: REPA aligns about a third of the way through."""
    layer = max(1, round(depth / 3)) if given is None else given
    if layer > depth:
        raise AvenirError(
            f"alignment.layer is {layer} and the predictor has {depth} blocks: name one of them"
        )
    return layer


def _frozen(teacher: Encoder | None) -> Encoder | None:
    return None if teacher is None else teacher.requires_grad_(False).eval()


@torch.no_grad()
def _seen(teacher: Encoder | None, video: Video) -> Latents | None:
    return None if teacher is None else teacher.encode(video)


def _projecting(alignment: Alignment) -> list[ParameterGroup]:
    learnt = [p for p in alignment.parameters() if p is not alignment.padding]
    return [ParameterGroup(learnt, _TERMS)] if learnt else []
