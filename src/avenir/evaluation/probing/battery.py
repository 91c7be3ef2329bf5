"""The questions of the semantic battery: what is true of windows, and what latents tell of it.

One encoder at a time; which one, on which windows, and how it is shown is `semantics.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot, pad

from avenir.clip import Batch
from avenir.data import Source
from avenir.data.synthetic.things import MOVING, Class
from avenir.device import generator
from avenir.evaluation.probing.probes import accuracy, attend, learn, neighbours, overlap, r2, ratio
from avenir.evaluation.probing.views import CELL, Views, area_means

Labels = dict[str, Tensor]
"""The truth of `n` windows by name, each `n …`."""

Scores = Iterator[tuple[str, str, Float[Tensor, " n"]]]
"""Probe, metric, and a score for each test window."""

_FRAME = {"ego": "ego position", "state": "state", "counts": "counts", "presence": "presence"}
_WINDOW = {
    "velocity": "ego velocity across",
    "speed": "ego speed",
    "actions": "inverse dynamics",
}
_LIKENESS = ("ego", "state", "counts")
_PREDICTED = ("ego", "state")

_PARTS = {
    "": list(Class),
    " of ego": [Class.EGO],
    " of vehicles": [Class.CAR, Class.TRUCK, Class.MOTORBIKE],
    " of pedestrians": [Class.PEDESTRIAN],
}
"""Small things apart: latents may lose them and keep all that is large."""

_THINGS = torch.tensor([*MOVING, Class.EGO])

_PLACES = 32
"""Places of a training window that the probe of places learns from, drawn at random."""

_SEEN = 0.5
"""Share of a thing that must show for it to be asked about."""

_NEAR = 0.25
"""Two things are near when their middles are within this share of the picture's width."""


def labels_of(batch: Batch, source: Source, instants: tuple[int, int]) -> Labels:
    """Take the truth at the last instant, and what happened between the two."""
    first, last = instants
    signals, labels = batch.signals, Labels()
    if "actions" in source.signals:
        # Those that lead from one instant to the other.
        labels["actions"] = signals["actions"][:, first:last].mean(1)
    if "state" in source.signals:
        labels["state"] = signals["state"][:, last]
    if source.has_labels:
        labels |= _synthetic_labels(signals, instants, source.fps)
    return labels


def _synthetic_labels(signals: Labels, instants: tuple[int, int], fps: float) -> Labels:
    first, last = instants
    now = {name: signal[:, last] for name, signal in signals.items()}
    moved = now["ego"][:, :1] - signals["ego"][:, first, :1]
    kind = torch.full_like(now["ego_visible"], Class.EGO)
    ego = torch.cat([now["ego"], kind, now["ego_visible"]], dim=1)
    things = torch.cat([now["objects"], ego[:, None]], dim=1)
    classes = rearrange(one_hot(now["segmentation"].long(), len(Class)), "n H W k -> n k H W")
    size = classes.shape[-2:]
    counts = [-(-pixels // CELL) for pixels in size]
    return {
        "ego": now["ego"],
        "ego_seen": now["ego_visible"][:, 0] >= _SEEN,
        "velocity": moved * fps / (last - first),
        "speed": now["speed"],
        "counts": now["counts"],
        "presence": (now["counts"] > 0).float(),
        "cells": area_means(classes.float(), counts, (CELL, CELL), (1, 1), size),
        # x, y, class, visible, draw rank; the ego last.
        "things": torch.cat([things, now["depth_order"][..., None]], dim=-1),
    }


class VisibleThings(NamedTuple):
    """What shows by half or more, its middle in the picture: `m` things of all windows."""

    clip: Int[Tensor, " m"]
    x: Float[Tensor, " m"]
    y: Float[Tensor, " m"]
    kind: Int[Tensor, " m"]
    rank: Float[Tensor, " m"]
    one: Int[Tensor, " p"]
    """With `other`: any two of different class that are near each other, in both orders."""
    other: Int[Tensor, " p"]

    @classmethod
    def of(cls, labels: Labels) -> "VisibleThings":
        """Find them."""
        height, width = (CELL * cells for cells in labels["cells"].shape[-2:])
        x, y, kind, visible, rank = labels["things"].unbind(-1)
        inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        seen = (kind > 0) & (visible >= _SEEN) & inside
        number = seen.flatten().cumsum(0).view(seen.shape) - 1
        far = (x[:, :, None] - x[:, None]).hypot(y[:, :, None] - y[:, None]) > _NEAR * width
        both = seen[:, :, None] & seen[:, None] & (kind[:, :, None] != kind[:, None]) & ~far
        clip, one, other = both.nonzero(as_tuple=True)
        return cls(
            clip=seen.nonzero()[:, 0],
            x=x[seen],
            y=y[seen],
            kind=kind[seen].long(),
            rank=rank[seen],
            one=number[clip, one],
            other=number[clip, other],
        )


@dataclass(frozen=True)
class Battery:
    """Every probe of one encoder: learnt on training windows, scored on test windows."""

    train: Labels
    test: Labels
    learnt: Views
    judged: Views
    held_out: Bool[Tensor, " n"]
    """Training windows that penalties are chosen on."""
    seed: int

    def scores(self) -> Scores:
        """Ask everything that there is a truth of."""
        frames, asked = self.learnt.pooled, self.judged.pooled
        yield from self._linear(_FRAME, frames[:, -1], asked[:, -1])
        for name in (name for name in _LIKENESS if name in self.train):
            guess = neighbours(frames[:, -1], self.train[name], asked[:, -1])
            yield from self._score(name, f"{_FRAME[name]} (likeness)", guess)
        for name in (name for name in _PREDICTED if name in self.train):
            yield from self._score(name, f"{_FRAME[name]} (predicted)", self._predicted(name))
        yield from self._linear(_WINDOW, frames.flatten(1), asked.flatten(1))
        if "cells" in self.train:
            yield from self._query()
            yield from self._things()
            yield from self._places()

    def _linear(self, names: dict[str, str], x: Tensor, asked: Tensor) -> Scores:
        """Learn all targets that are read from the same rows together."""
        known = [name for name in names if name in self.train]
        if not known:
            return
        truth = torch.cat([self.train[name] for name in known], dim=1)
        guesses = learn(x, truth, self.held_out)(asked)
        sizes = [self.train[name].shape[1] for name in known]
        for name, guess in zip(known, guesses.split(sizes, dim=1), strict=True):
            yield from self._score(name, names[name], guess)

    def _predicted(self, name: str) -> Tensor:
        """Predict the last frame linearly, from those of the first stretch and the actions since.

        What the frame's probe reads in it is predicted instead of the frame: maps are linear, so
        that comes to the same.
        """
        learnt, judged = self.learnt.pooled, self.judged.pooled
        read = learn(learnt[:, -1], self.train[name], self.held_out)(learnt[:, -1])

        def known(frames: Tensor, labels: Labels) -> Tensor:
            first = frames[:, : frames.shape[1] // 2].flatten(1)
            return torch.cat([first, labels["actions"]], 1) if "actions" in labels else first

        dynamics = learn(known(learnt, self.train), read, self.held_out)
        return dynamics(known(judged, self.test))

    def _query(self) -> Scores:
        places, asked = self.learnt.places.flatten(1, 2), self.judged.places.flatten(1, 2)
        counts, chances = attend(places, self.train["counts"], asked, self.seed)
        yield from self._score("counts", "counts (query)", counts)
        yield from self._score("presence", "presence (query)", chances)

    def _score(self, name: str, probe: str, guess: Tensor) -> Scores:
        truth = self.test[name]
        if name == "presence":
            yield probe, "accuracy", _recognised(guess, truth, self.train[name].mean(0))
            return
        seen = self.test["ego_seen"] if name == "ego" else None
        yield probe, "R²", r2(guess, truth, seen)
        if seen is not None:
            yield probe, "px", (guess - truth).norm(dim=1).where(seen, torch.nan)

    def _things(self) -> Scores:
        """Ask for the class of things, and which of two near ones is above the other."""
        learnt, asked = VisibleThings.of(self.train), VisibleThings.of(self.test)
        x = self.learnt.at(learnt.clip, learnt.x, learnt.y)
        y = self.judged.at(asked.clip, asked.x, asked.y)
        held_out, num_clips = self.held_out[learnt.clip], len(self.test["things"])

        kinds = (learnt.kind[:, None] == _THINGS).float()
        # Rare classes count as much as frequent ones, so their chances are weighed by rarity.
        chances = learn(x, kinds, held_out)(y) / kinds.mean(0).clamp(min=1e-9)
        chosen = _THINGS[chances.argmax(1)]
        yield "class of a thing", "accuracy", accuracy(chosen, asked.kind, asked.clip, num_clips)

        one, other, this, that = learnt.one, learnt.other, asked.one, asked.other
        above = (learnt.rank[one] - learnt.rank[other]).sign()
        guess = learn(x[one] - x[other], above[:, None], held_out[one])(y[this] - y[that])[:, 0]
        truth = asked.rank[this] > asked.rank[that]
        found = accuracy((guess > 0).long(), truth.long(), asked.clip[this], num_clips)
        yield "depth order", "accuracy", found

    def _places(self) -> Scores:
        """Ask every place for the share of each class in each of its cells."""
        guess, truth = self._cells(), rearrange(self.test["cells"], "n k r c -> n r c k")
        chosen, true = guess.argmax(-1), truth.argmax(-1)
        for part, classes in _PARTS.items():
            yield f"coverage{part}", "R²", r2(guess[..., classes], truth[..., classes])
        for part, classes in _PARTS.items():
            yield f"segmentation{part}", "mIoU", overlap(chosen, true, classes)

    def _cells(self) -> Float[Tensor, "n r c k"]:
        """Learn what lies in the cells of a place, and tell it of every test place."""
        places, (down, right) = self.learnt.places, self.learnt.cells
        n, h, w, _ = places.shape
        rows, columns = self.train["cells"].shape[-2:]
        edges = (0, w * right - columns, 0, h * down - rows)
        cells = pad(self.train["cells"], edges, mode="replicate")
        truth = rearrange(cells, "n k (h u) (w v) -> n (h w) (u v k)", u=down, v=right)
        rng = generator("places", self.seed)
        drawn = torch.rand(n, h * w, generator=rng).argsort(1)[:, :_PLACES]
        clip = torch.arange(n)[:, None].expand_as(drawn).flatten()
        drawn = drawn.flatten()
        probe = learn(places.flatten(1, 2)[clip, drawn], truth[clip, drawn], self.held_out[clip])
        # Where in its place a cell lies must tell nothing: it would tell more in larger places.
        shares = probe(self.judged.places.flatten(0, 2)) - probe.ridge.middle
        sizes = {"h": h, "w": w, "u": down, "v": right}
        shares = rearrange(shares, "(n h w) (u v k) -> n (h u) (w v) k", **sizes)
        return shares[:, :rows, :columns] + reduce(cells, "n k r c -> k", "mean")


def _recognised(
    chances: Float[Tensor, "n k"], truth: Float[Tensor, "n k"], prior: Float[Tensor, " k"]
) -> Float[Tensor, " n"]:
    """Return how often presence and absence are recognised; more than the prior is yes."""
    answers = (chances > prior).float()
    asked = torch.cat([truth, 1 - truth], dim=1)
    return ratio(asked * torch.cat([answers, 1 - answers], dim=1), asked)
