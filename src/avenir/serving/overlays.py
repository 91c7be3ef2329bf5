"""What can be seen of latents while they are played: colours, and factors that a probe reads.

Colours are the principal components of the latents that playing begins from. A probe is a ridge
regression from one latent to what the data says of its last frame, learnt from observed frames;
what is imagined is read as if it were observed. Nothing is computed unless it is asked for.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.autograd.functional import jacobian

from avenir.console import Report, silent
from avenir.data import Source, Window
from avenir.data.synthetic import Synthetic
from avenir.data.synthetic.things import MOVING
from avenir.errors import AvenirError
from avenir.evaluation.baselines import frames_of
from avenir.evaluation.probing.battery import Labels, labels_of
from avenir.evaluation.probing.diagnostics import pooled
from avenir.evaluation.probing.features import Components, components, paint
from avenir.evaluation.probing.probes import learn, r2
from avenir.serving.backends import Direction, InitialState
from avenir.shapes import Compression, Latents
from avenir.world import World

Latent = Float[Tensor, "c h w"]


_MOST_COLOURED = 4
"""Latents of every initial state that components are found in."""
_NUM_TRAIN, _NUM_TEST, _BATCH = 384, 128, 32
"""Windows that a probe learns from, and those it is judged on."""
_SECONDS = 4.0
"""After so long it makes do with the windows it has seen."""


class Factor(NamedTuple):
    """Something that is read in latents, and how well it is, in held-out recordings."""

    name: str
    unit: str
    r2: float
    """Share of its variance: 1 is exact, 0 no better than saying the mean each time."""


@dataclass(frozen=True)
class Probes:
    """Linear read-outs of a latent, `k` of them, and how far each is moved."""

    factors: tuple[Factor, ...]
    weights: Float[Tensor, "k c h w"]
    offsets: Float[Tensor, " k"]
    deviations: Float[Tensor, " k"]
    """Of each factor, as it is read in held-out recordings."""

    def read(self, latent: Latent) -> list[float]:
        """Say how much of each factor there is."""
        return (self.weights.flatten(1) @ latent.double().flatten() + self.offsets).tolist()

    @cached_property
    def directions(self) -> list[Direction]:
        """The least change of a latent in which each factor is read one deviation higher."""
        changes = zip(self.factors, self.weights, self.deviations, strict=True)
        return [
            Direction(factor.name, (weights * deviation / weights.square().sum()).float())
            for factor, weights, deviation in changes
        ]


@dataclass(frozen=True)
class Overlays:
    """What can be seen of latents."""

    components: Components
    probes: Probes | None = None
    """None where the data has no labels."""

    @classmethod
    def of(
        cls,
        world: World,
        initial_states: Sequence[InitialState],
        source: Source | None = None,
        report: Report = silent,
    ) -> "Overlays":
        """Find components in the initial states and, where there are labels, learn probes."""
        f_t = world.f_t
        latents = []
        for initial in initial_states:
            num_frames = min(_MOST_COLOURED, initial.past.num_frames // f_t) * f_t
            latents.append(_encoded(world, initial.past[-num_frames:].video)[0])
        found = components(torch.cat(latents)[None])
        return cls(found, _learnt(world, source, report) if source else None)

    @property
    def factors(self) -> list[Factor]:
        """What is read."""
        return [] if self.probes is None else list(self.probes.factors)

    @property
    def directions(self) -> list[Direction]:
        """Where each of them grows."""
        return [] if self.probes is None else self.probes.directions

    def read(self, latent: Latent) -> list[float]:
        """Say how much of each there is."""
        return [] if self.probes is None else self.probes.read(latent)

    def painted(self, latent: Latent) -> UInt8[Tensor, "1 3 h w"]:
        """Show the three components as red, green and blue, a pixel for each place."""
        return paint(latent[None, None], self.components, Compression(1, 1, 1))


class Truth(NamedTuple):
    """What is true of windows."""

    name: str
    unit: str
    values: Float[Tensor, " n"]
    counted: Bool[Tensor, " n"]


def truths_of(labels: Labels, source: Source) -> list[Truth]:
    """List the numbers that the data has labels of."""
    found: list[Truth] = []
    if "ego" in labels:
        ego, seen = labels["ego"], labels["ego_seen"]
        every = torch.ones_like(seen)
        found = [
            Truth("ego x", "px", ego[:, 0], seen),
            Truth("ego y", "px", ego[:, 1], seen),
            Truth("ego speed", "px/s", labels["speed"][:, 0], every),
        ]
        kinds = zip(MOVING, labels["counts"].T, strict=True)
        found += [Truth(f"{kind.name.lower()}s", "seen", n, every) for kind, n in kinds]
    if "state" in labels:
        every = torch.ones(len(labels["state"]), dtype=torch.bool)
        names = source.signals["state"].names
        for number, values in enumerate(labels["state"].T):
            found.append(Truth(names[number] if names else f"state {number}", "", values, every))
    return found


def _learnt(world: World, source: Source, report: Report) -> Probes | None:
    """Learn to read what there are labels of; None where there are none, or too few windows."""
    source = source.labelled()
    same = source.size == world.card.size and source.fps == world.card.fps
    known = (isinstance(source, Synthetic) and source.config.labels) or "state" in source.signals
    if not same or not known:
        return None
    f_t, began = world.f_t, time.monotonic()
    try:
        train = source.draw("train", 2 * f_t, _NUM_TRAIN, seed=0)
        test = source.draw("test", 2 * f_t, _NUM_TEST, seed=0)
    except AvenirError:  # recordings are too short
        return None
    report("latents to learn to read", 0, _NUM_TRAIN + _NUM_TEST)
    latents, labels = _looked(world, source, train, began + 0.75 * _SECONDS)
    asked, true = _looked(world, source, test, began + _SECONDS)
    report("latents to learn to read", len(latents) + len(asked), _NUM_TRAIN + _NUM_TEST)
    names = [window.recording.name for window in train[: len(latents)]]
    kept = set(sorted(set(names))[::5])
    held_out = torch.tensor([name in kept for name in names])
    pairs = zip(truths_of(labels, source), truths_of(true, source), strict=True)
    # What was not recorded is NaN.
    known = [pair for pair in pairs if all(truth.values.isfinite().all() for truth in pair)]
    if held_out.all() or not known:
        return None
    return fitted(
        latents, [one for one, _ in known], held_out, asked, [other for _, other in known]
    )


def fitted(
    latents: Latents,
    truths: Sequence[Truth],
    held_out: Bool[Tensor, " n"],
    asked: Float[Tensor, "m t c h w"],
    judged: Sequence[Truth],
) -> Probes:
    """Learn probes from latents `n 1 c h w`, and judge them on others; what never varies is out."""
    targets = torch.stack([truth.values for truth in truths], dim=1)
    probe = learn(pooled(latents).flatten(1), targets, held_out)

    def read(x: Latents) -> Float[Tensor, "n k"]:
        return probe(pooled(x).flatten(1))

    # It is linear, so that its slope at any latent holds at every other.
    nowhere = torch.zeros_like(latents[:1], dtype=torch.float64)
    slopes = jacobian(read, nowhere)
    assert isinstance(slopes, Tensor)
    values = read(asked)
    factors, rows = [], []
    for number, truth in enumerate(judged):
        column = values[:, number : number + 1]
        score = float(r2(column, truth.values[:, None], truth.counted).mean())
        if column.std() > 0 and math.isfinite(score):
            factors.append(Factor(truth.name, truth.unit, score))
            rows.append(number)
    return Probes(
        factors=tuple(factors),
        weights=slopes[0, rows, 0, 0],
        offsets=read(nowhere)[0, rows],
        deviations=values[:, rows].std(0),
    )


def _looked(
    world: World, source: Source, windows: Sequence[Window], deadline: float
) -> tuple[Latents, Labels]:
    """Encode the last latent of windows, `n 1 c h w`, until time is up, and say what is true."""
    f_t, latents, labels = world.f_t, list[Tensor](), list[Labels]()
    for start in range(0, len(windows), _BATCH):
        if latents and time.monotonic() > deadline:
            break
        batch = source.read(windows[start : start + _BATCH])
        latents.append(_encoded(world, frames_of(batch)[:, f_t:]))
        labels.append(labels_of(batch, source, (f_t - 1, 2 * f_t - 1)))
    joined = {name: torch.cat([part[name] for part in labels]) for name in labels[0]}
    return torch.cat(latents), joined


@torch.no_grad()
def _encoded(world: World, video: Tensor) -> Latents:
    device = world.encoder.latent_mean.device
    return world.encoder.encode(video.to(device)).float().cpu()
