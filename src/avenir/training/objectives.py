"""What one step does, for each thing that can be trained: encoder, decoder, predictor.

A task builds the world to train, says which losses descend, and what remains to be done when the
steps are over. The loop is in loop.py and is the same for all.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avenir.augmentation import jittered
from avenir.card import Card
from avenir.clip import Batch, Condition, Progress
from avenir.conditioners import DiscoveringConditioner
from avenir.config import merged
from avenir.console import Report, say
from avenir.data import Source
from avenir.data.cached import Cached
from avenir.device import seed_of
from avenir.encoders import ParameterGroup, Posterior, Tokenizer
from avenir.errors import AvenirError
from avenir.predictors import FeatureHook, TokenPredictor
from avenir.registry import find, parse
from avenir.shapes import Latents
from avenir.signals import Signal
from avenir.training.latent_cache import cache_latents, encoder_hash
from avenir.training.recipe import Recipe
from avenir.world import World

_MOST_NAMED = 10_000
"""Most training recordings that a card lists by name."""


class Objective(ABC):
    """The world to train and how one batch teaches it."""

    world: World
    source: Source
    """Where training batches come from."""
    data: Source
    """The data set itself, with frames."""
    num_frames: int
    """Frames of a training window."""

    @abstractmethod
    def __init__(self, recipe: Recipe, data: Source, world: World) -> None: ...

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """Return the part of the world whose weights change."""

    @property
    def learns(self) -> bool:
        """Say whether there is anything to train: of a public encoder there is not."""
        return any(True for _ in self.trained.parameters())

    @abstractmethod
    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return every term by name, unweighted."""

    @abstractmethod
    def groups(self) -> list[ParameterGroup]:
        """Say which parameters descend which losses."""

    @abstractmethod
    def after_step(self, progress: Progress) -> None:
        """Do what follows the descent of every step."""

    @abstractmethod
    def prepare(self, runs: Path, report: Report) -> None:
        """Do what comes once before the first step."""

    @abstractmethod
    def finish(self, seed: int) -> None:
        """Do what comes once after the last step, the averaged weights in place."""


class EncoderObjective(Objective):
    """Train an encoder on video; its latent statistics are taken when it is done."""

    def __init__(self, recipe: Recipe, data: Source, world: World) -> None:
        self.recipe, self.data, self.source, self.world = recipe, data, data, world
        self.num_frames = recipe.train.num_groups * world.encoder.compression.t

    @property
    def trained(self) -> nn.Module:
        """Return the encoder."""
        return self.world.encoder

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Ask the encoder, on each view for itself and on colours that vary."""
        batch = self._coloured(self._apart(batch), progress)
        return self.world.encoder.losses(batch, progress)

    def groups(self) -> list[ParameterGroup]:
        """Ask the encoder."""
        return self.world.encoder.parameter_groups()

    def after_step(self, progress: Progress) -> None:
        """Ask the encoder."""
        self.world.encoder.after_step(progress)

    def prepare(self, runs: Path, report: Report) -> None:
        """Start from random weights: nothing to do."""

    def finish(self, seed: int) -> None:
        """Take mean and standard deviation per channel over training latents, once."""
        set_latent_statistics(self.world, self.data, self.num_frames, seed)

    def _apart(self, batch: Batch) -> Batch:
        encoder = self.world.encoder
        if batch.video is None or encoder.views == 1:
            return batch
        every = {n: s.repeat_interleave(encoder.views, dim=0) for n, s in batch.signals.items()}
        return replace(batch, video=encoder.apart(batch.video), signals=every)

    def _coloured(self, batch: Batch, progress: Progress) -> Batch:
        strength = self.recipe.train.colour_jitter
        if not strength or batch.video is None:
            return batch
        video = jittered(batch.video, strength, progress.generator)
        return replace(batch, video=video.clamp(-1, 1))


class DecoderObjective(EncoderObjective):
    """Train the decoding of a finished encoder; its latents and their statistics stay."""

    def prepare(self, runs: Path, report: Report) -> None:
        """Freeze what makes latents."""
        assert isinstance(self.world.encoder, Tokenizer)
        self.world.encoder.freeze_encoder()

    def finish(self, seed: int) -> None:
        """Keep the statistics."""


class PredictorObjective(Objective):
    """Train conditioner and predictor on the latents of a finished encoder."""

    def __init__(self, recipe: Recipe, data: Source, world: World) -> None:
        assert world.predictor is not None
        self.recipe, self.data, self.source, self.world = recipe, data, data, world
        self.predictor = world.predictor
        self.num_frames = self.predictor.num_train_frames * world.encoder.compression.t
        world.encoder.requires_grad_(False).eval()
        self.steered = nn.ModuleDict({"predictor": self.predictor})
        if world.conditioner is not None:
            self.steered["conditioner"] = world.conditioner

    @property
    def trained(self) -> nn.Module:
        """Return predictor and conditioner."""
        return self.steered

    def prepare(self, runs: Path, report: Report) -> None:
        """Normalise the signals, take the table of codes and encode the latents, once."""
        self._fit_conditioner()
        if isinstance(self.predictor, TokenPredictor):
            self._take_codes(self.predictor)
        if isinstance(self.data, Cached):
            self.data.check(encoder_hash(self.world))
        elif self.recipe.train.cache_recordings != 0:
            self.source = cache_latents(self.world, self.data, runs, self.recipe, report)

    def losses(
        self, batch: Batch, progress: Progress, hook: FeatureHook | None = None
    ) -> dict[str, Tensor]:
        """Draw latents from the posterior, drop some of the condition, and ask the predictor."""
        latents = self._latents(batch, progress.generator)
        condition, discovery = None, {}
        if self.world.conditioner is not None:
            condition = self._condition(batch, latents, progress.generator)
            discovery = self.world.conditioner.losses(latents)
        return self.predictor.losses(latents, condition, progress, hook) | discovery

    def after_step(self, progress: Progress) -> None:
        """Nothing follows: no predictor keeps averages of its own."""

    def finish(self, seed: int) -> None:
        """Leave the weights as they are."""

    def groups(self) -> list[ParameterGroup]:
        """Descend every loss of the predictor with weight one."""
        return [ParameterGroup(list(self.steered.parameters()), {"*": 1.0})]

    def _latents(self, batch: Batch, generator: torch.Generator) -> Latents:
        if batch.latents is not None:
            return Posterior(batch.latents, batch.log_variance).sample(generator)
        assert batch.video is not None
        with torch.no_grad():
            return self.world.encoder.posterior(batch.video).sample(generator)

    def _condition(self, batch: Batch, latents: Latents, generator: torch.Generator) -> Condition:
        assert self.world.conditioner is not None
        return self.world.conditioner(
            batch.signals, latents.shape[1], len(latents), generator, latents
        )

    def _take_codes(self, predictor: TokenPredictor) -> None:
        every = torch.arange(len(predictor.codes), device=predictor.codes.device)
        codes = self.world.encoder.embed(every[None, :, None, None])
        predictor.codes.copy_(codes[0, :, :, 0, 0])

    def _fit_conditioner(self) -> None:
        conditioner = self.world.conditioner
        if "actions" in self.data.signals and "actions" not in self.world.takes:
            say("the data has actions, and this recipe no conditioner that hears them")
        if conditioner is None:
            return
        seed = seed_of("signals", self.recipe.seed)
        windows = self.data.draw("train", self.num_frames, 64, seed)
        signals = [self.data.read([window]).signals for window in windows]
        conditioner.fit([{name: value[0] for name, value in each.items()} for each in signals])
        self._check_heard({n: torch.cat([each[n] for each in signals]) for n in self.world.takes})

    @torch.no_grad()
    def _check_heard(self, signals: dict[str, Tensor]) -> None:
        """Refuse signals `b T s` of which nothing is heard, and name numbers that never are."""
        assert self.world.conditioner is not None
        whole = all(rows.isfinite().all(-1).any() for rows in signals.values())
        if whole or self.world.discovers:  # every kind hears what is known in full
            return
        count, num_frames = next(iter(signals.values())).shape[:2]
        length = num_frames // self.world.encoder.compression.t
        here = {n: s.to(self.world.encoder.latent_mean.device) for n, s in signals.items()}
        kind = (self.world.card.conditioner or {})["kind"]
        heard, silence = (self.world.conditioner(x, length, count) for x in (here, {}))
        parts, silent = (condition.parts or {kind: condition} for condition in (heard, silence))
        for kind, condition in parts.items():
            if all(map(torch.equal, _tensors(condition), _tensors(silent[kind]))):
                raise AvenirError(
                    f"conditioner {kind!r} would steer nothing: in {count} windows of the training "
                    "recordings every row that it reads has a number that is NaN; complete the "
                    "data, or leave this conditioner out of the recipe"
                )
        for name, rows in signals.items():
            names = self.world.card.signals[name].names or tuple(map(str, range(rows.shape[-1])))
            ever = rows.isfinite().flatten(0, 1).any(0).tolist()
            if not all(ever):
                never = ", ".join(n for n, known in zip(names, ever, strict=True) if not known)
                say(f"{name}: {never} is NaN in all training windows looked at, and steers nothing")


def _tensors(condition: Condition) -> list[Tensor]:
    """List what a condition tells: vectors of frames and of views, and where there is more."""
    context = condition.context and condition.context.known
    return [x for x in (condition.per_frame, condition.per_view, context) if x is not None]


def make_card(
    recipe: Recipe, data: Source, parent: World | None, teacher: World | None = None
) -> Card:
    """Say what the world of this recipe is made of; its encoder may be made on a `teacher`."""
    encoder: dict[str, Any] = recipe.encoder or {}
    if teacher is not None:
        encoder = encoder | {"teacher": teacher.card.encoder}
    if parent is not None:
        encoder = merged(parent.card.encoder, recipe.decoder)
    if (recipe.predictor is None) != (recipe.task != "predictor"):
        raise AvenirError(
            f"the recipe's task is {recipe.task!r} and it has "
            f"{'no' if recipe.predictor is None else 'a'} [predictor]; "
            "a predictor's recipe needs one, the others none"
        )
    if recipe.alignment is not None and recipe.task == "decoder":
        raise AvenirError(
            "the recipe's task is 'decoder' and it has [alignment]; latents are finished by then, "
            "and training their decoding does not change them: put it in the tokenizer's recipe"
        )
    return Card(
        name=recipe.name,
        fps=data.fps,
        size=data.size,
        views=data.views,
        signals=_taken(recipe, data),
        tokenizer=data.tokenizer,
        encoder=encoder,
        conditioner=recipe.conditioner,
        predictor=recipe.predictor,
    )


def _taken(recipe: Recipe, data: Source) -> dict[str, Signal]:
    """Say what a world takes: the signals of its data, or actions that it is yet to discover."""
    if recipe.conditioner is None:
        return data.signals
    kind = find("conditioners", recipe.conditioner["kind"])
    if not issubclass(kind, DiscoveringConditioner):
        return data.signals
    return {"actions": Signal.choice(kind.count(parse("conditioners", recipe.conditioner)))}


def trained_on(data: Source) -> dict[str, list[str]]:
    """Tell the training recordings apart from all others, for a card.

    By name, or, of a world that makes very many in a row, by the first and the last.
    """
    recordings = data.recordings("train")
    if len(recordings) <= _MOST_NAMED:
        return {"recordings": [r.identity for r in recordings]}
    return {"between": [recordings[0].identity, recordings[-1].identity]}


def make_source(table: dict[str, Any]) -> Source:
    """Build the source that a recipe's data table describes."""
    cls = find("data", table["kind"])
    return cls(cls.Config.parse(table, "data"))


@torch.no_grad()
def set_latent_statistics(world: World, data: Source, num_frames: int, seed: int) -> None:
    """Measure training latents, 512 groups of frames at least, and store mean and deviation."""
    encoder = world.encoder
    encoder.latent_mean.zero_()
    encoder.latent_std.fill_(1)
    f_t, device = encoder.compression.t, encoder.latent_mean.device
    count = max(32, 512 * f_t // num_frames)
    windows = data.draw("train", num_frames, count, seed_of("statistics", seed))
    means = []
    for start in range(0, count, 32):
        video = data.read(windows[start : start + 32]).video
        assert video is not None
        means.append(encoder.encode(video.to(device)))
    latents = torch.cat(means).transpose(0, 2).flatten(1)
    encoder.latent_mean.copy_(latents.mean(1)[:, None, None])
    encoder.latent_std.copy_(latents.std(1).clamp(min=1e-4)[:, None, None])
