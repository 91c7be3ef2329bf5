"""What a latent is worth before any generator is trained on it: its passport.

Three groups of numbers, on the same held-out clips for every encoder: what latents alone tell
(diagnostics.py); what decoding bears, of latents between others or noised, in the eyes of an
independent evaluator (distances.py); and what follows for a predictor. Trains no network, and
knows none.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from avenir.clip import to_frames, to_video
from avenir.console import Report, silent
from avenir.data import Source, Window
from avenir.device import generator, seed_of
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.evaluation.baselines import frames_of
from avenir.evaluation.independence import check_judge
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.evaluation.metrics.distribution import Features, features_of, frechet, kernel_distance
from avenir.evaluation.metrics.frames import psnr
from avenir.evaluation.probing.diagnostics import (
    Split,
    active_channels,
    between_neighbours,
    channel_spectrum,
    high_frequencies,
    incoming,
    inverse_dynamics,
    linear_dynamics,
    local_similarity,
    nearest_elsewhere,
    pooled,
    temporal_distance,
    velocity_variance,
)
from avenir.evaluation.probing.passport_results import (
    Distance,
    NoiseBorne,
    Passport,
    PassportConfig,
    Passports,
    StepAhead,
    recommendations,
)
from avenir.losses.distillation import effective_rank
from avenir.shapes import Actions, Frames, Latents, Video
from avenir.world import World

_BATCH = 16
"""Clips in work together."""

_STEPS = (1, 2, 4)
"""How many latent frames ahead linear dynamics look."""

_NOISES = (0.1, 0.3, 0.5)
"""Noise on latents, in their deviations."""

_NOISY_CLIPS = 64
"""Clips that are decoded under every noise."""


class Clips(NamedTuple):
    """Clips of one split, read once for all encoders."""

    frames: Frames
    """`n T C H W`."""
    actions: Actions | None
    """None when there are none, or when some are unknown."""
    groups: list[str]
    """The recording of each."""

    @classmethod
    def read(cls, source: Source, windows: Sequence[Window], report: Report) -> "Clips":
        """Read windows of equal length."""
        frames, actions = [], []
        for start in range(0, len(windows), _BATCH):
            report("reading clips", start, len(windows))
            batch = source.read(windows[start : start + _BATCH])
            frames.append(to_frames(frames_of(batch)))
            if "actions" in source.signals:
                actions.append(batch.signals["actions"])
        report("reading clips", len(windows), len(windows))
        known = torch.cat(actions) if actions else None
        if known is not None and not known.isfinite().all():
            known = None
        return cls(torch.cat(frames), known, [window.recording.name for window in windows])

    def videos(self) -> Iterator[Video]:
        """Yield the frames as models see them, a few clips at a time."""
        return map(to_video, self.frames.split(_BATCH))


def measure_passports(
    worlds: Mapping[str, World],
    source: Source,
    settings: PassportConfig,
    evaluator: World | None,
    report: Report = silent,
) -> Passports:
    """Make out the passport of every world's encoder, by name; `report` is called with progress."""
    started = time.monotonic()
    for world in worlds.values():
        _check(world, source)
        _check_groups(world, settings.num_frames)
        if evaluator is not None and world.encoder.can_decode:
            check_judge(evaluator.card, world.card)
    if evaluator is not None:
        _check(evaluator, source)
    length, seed = settings.num_frames, seed_of("passport", settings.seed)
    test = Clips.read(source, source.spread("test", length, settings.num_clips), report)
    train = Clips.read(source, source.draw("train", length, settings.num_clips, seed), report)
    for split, clips in (("test", test), ("training", train)):
        if len(set(clips.groups)) < 2:
            raise AvenirError(
                f"the data has one {split} recording long enough; a passport compares clips of "
                "several: give data with more recordings, or ask for fewer frames"
            )
    bench = Bench(source.fps, train, test, evaluator, settings.seed, report)
    return Passports(
        source=type(source).__name__.lower(),
        fingerprint=source.fingerprint,
        fps=source.fps,
        settings=settings,
        num_clips=len(test.groups),
        num_recordings=len(set(test.groups)),
        evaluator=None if evaluator is None else evaluator.card.name,
        passports=tuple(bench.passport(name, world) for name, world in worlds.items()),
        seconds=round(time.monotonic() - started, 1),
    )


def _check(world: World, source: Source) -> None:
    card = world.card
    if source.fps != card.fps or source.size != card.size:
        raise AvenirError(
            f"the data gives frames of {source.size} at {source.fps:g} fps; {card.name!r} lives at "
            f"{card.size} and {card.fps:g} fps: passports are compared on the same clips, so give "
            "encoders, evaluator and data of one size and rate"
        )


def _check_groups(world: World, num_frames: int) -> None:
    card, f_t = world.card, world.encoder.compression.t
    if num_frames % f_t or num_frames < 2 * f_t:
        fewest = max(2, num_frames // f_t) * f_t
        raise AvenirError(
            f"clips of {num_frames} frames were asked for; {card.name!r} encodes groups of {f_t} "
            f"and needs two or more whole ones: use --frames {fewest} or {fewest + f_t}"
        )


class Bench:
    """What every encoder is measured with: the same clips, the same evaluator."""

    def __init__(
        self,
        fps: float,
        train: Clips,
        test: Clips,
        evaluator: World | None,
        seed: int,
        report: Report,
    ) -> None:
        self.fps, self.train, self.test, self.seed, self.report = fps, train, test, seed, report
        self.evaluator = None if evaluator is None else evaluator.encoder
        self.real = self._features(test.videos(), "judging real clips")

    def passport(self, name: str, world: World) -> Passport:
        """Measure one encoder."""
        encoder, card = world.encoder, world.card
        latents, doubt = self._encoded(encoder, self.test)
        b, t, c, h, w = latents.shape
        deviation = float(latents.std())
        return Passport(
            name=name,
            key=card.provenance.get("key"),
            kind=card.encoder["kind"],
            compression=(encoder.compression.t, encoder.compression.h, encoder.compression.w),
            latent_shape=(t, c, h, w),
            deviation=deviation,
            active_channels=active_channels(latents, doubt),
            recommendations=tuple(recommendations(t, c, h, w, deviation)),
            **self._alone(latents),
            **self._dynamics(encoder, latents),
            **self._decodings(name, encoder, latents),
        )

    def _alone(self, latents: Latents) -> dict[str, Any]:
        spectrum, frames = channel_spectrum(latents), latents.flatten(0, 1)
        return {
            "effective_rank": float(effective_rank(spectrum)),
            "spectrum": tuple(round(value, 6) for value in spectrum.flip(0).tolist()),
            "high_frequencies": self._interval(high_frequencies(latents)),
            "local_similarity": self._interval(local_similarity(latents)),
            "temporal_distance": self._interval(temporal_distance(latents)),
            "velocity_variance": velocity_variance(frames - frames.mean(0)),
        }

    def _dynamics(self, encoder: Encoder, latents: Latents) -> dict[str, Any]:
        split, f_t = self._split(encoder, latents), encoder.compression.t
        ahead = {k: linear_dynamics(split, k) for k in _STEPS if k < latents.shape[1]}
        steps = tuple(
            StepAhead(
                step=k,
                seconds=k * f_t / self.fps,
                r2=self._interval(found.r2),
                held=self._interval(found.held),
            )
            for k, found in ahead.items()
        )
        steered = split.test_actions is not None
        return {
            "linear_dynamics": steps,
            "inverse_dynamics": self._interval(inverse_dynamics(split)) if steered else None,
            "velocity_variance_given_past": velocity_variance(ahead[1].error),
            "regressed_shape": tuple(split.test.shape[2:]),
        }

    def _split(self, encoder: Encoder, latents: Latents) -> Split:
        train, _ = self._encoded(encoder, self.train)
        names = {name: i for i, name in enumerate(sorted(set(self.train.groups)))}
        held_out = torch.tensor([names[name] % 5 == 0 for name in self.train.groups])
        split = Split(pooled(train), pooled(latents), None, None, held_out)
        if self.train.actions is None or self.test.actions is None:
            return split
        f_t = encoder.compression.t
        return split._replace(
            train_actions=incoming(self.train.actions, f_t),
            test_actions=incoming(self.test.actions, f_t),
        )

    @torch.no_grad()
    def _encoded(self, encoder: Encoder, clips: Clips) -> tuple[Latents, Float[Tensor, " c"]]:
        """Return latents, and the mean variance of every channel's posterior."""
        means, doubt = [], torch.zeros(encoder.channels)
        for video in clips.videos():
            posterior = encoder.posterior(video.to(encoder.latent_mean.device))
            means.append(posterior.mean.float().cpu())
            if posterior.log_variance is not None:
                variance = posterior.log_variance.float().exp().cpu()
                doubt += variance.mean((1, 3, 4)).sum(0) / len(clips.frames)
        return torch.cat(means), doubt

    def _decodings(self, name: str, encoder: Encoder, latents: Latents) -> dict[str, Any]:
        """Decode latents as they are, between others, and noised."""
        places = ("reconstructed", "interpolated", "between")
        found: dict[str, Any] = dict.fromkeys(places) | {"psnr": None, "noise_borne": ()}
        if not encoder.can_decode:
            return found
        made = self._decoded(encoder, latents)
        found["psnr"] = self._interval(self._psnr(made, slice(None)))
        found["noise_borne"] = tuple(self._noised(encoder, latents, made))
        if self.evaluator is not None:
            found["reconstructed"] = self._distance(made, name)
            nearest = latents[nearest_elsewhere(latents, self.test.groups)]
            made = self._decoded(encoder, (latents + nearest) / 2)
            found["interpolated"] = self._distance(made, name)
            if latents.shape[1] > 2:
                made = self._decoded(encoder, between_neighbours(latents))
                found["between"] = self._distance(made, name)
        return found

    @torch.no_grad()
    def _decoded(self, encoder: Encoder, latents: Latents) -> Frames:
        """Decode clips, cut to what was encoded, as frames that can be looked at."""
        _, length, _, height, width = self.test.frames.shape
        pieces = (
            encoder.decode(piece.to(encoder.latent_mean.device)) for piece in latents.split(_BATCH)
        )
        return torch.cat([to_frames(p[:, :length, :, :height, :width]).cpu() for p in pieces])

    def _noised(self, encoder: Encoder, latents: Latents, made: Frames) -> Iterator[NoiseBorne]:
        step = max(1, len(latents) // _NOISY_CLIPS)
        few = slice(0, step * _NOISY_CLIPS, step)
        clean = self._psnr(made[few], few)
        for noise in _NOISES:
            rng = generator("passport noise", self.seed, str(noise))
            noised = latents[few] + noise * torch.randn(latents[few].shape, generator=rng)
            drop = clean - self._psnr(self._decoded(encoder, noised), few)
            yield NoiseBorne(noise=noise, drop=interval(drop, self.test.groups[few], self.seed))

    def _psnr(self, made: Frames, which: slice) -> Float[Tensor, " n"]:
        true = self.test.frames[which]
        pairs = zip(made.split(_BATCH), true.split(_BATCH), strict=True)
        return torch.cat([psnr(to_video(x), to_video(y)).mean(1) for x, y in pairs])

    def _distance(self, made: Frames, name: str) -> Distance:
        features = self._features(map(to_video, made.split(_BATCH)), f"judging {name}")
        assert self.real is not None and features is not None
        groups = self.test.groups
        return Distance(
            frechet=frechet(self.real, features),
            kernel=kernel_distance(self.real, features, groups, groups, self.seed),
        )

    def _features(self, videos: Iterable[Video], what: str) -> Features | None:
        if self.evaluator is None:
            return None
        parts, total = [], len(self.test.frames)
        for video in videos:
            self.report(what, len(parts) * _BATCH, total)
            parts.append(features_of(self.evaluator, video))
        self.report(what, total, total)
        return torch.cat(parts)

    def _interval(self, values: Float[Tensor, " n"]) -> Interval:
        return interval(values, self.test.groups, self.seed)
