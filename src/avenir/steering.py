"""What steers a future, on one axis with its past: actions that are taken, words that are said.

The action at frame k leads to frame k + 1; a caption says what its own frame shows. What nobody
said is NaN. Knows clips and signals; no model.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from avenir.clip import Clip
from avenir.data import Signal
from avenir.errors import AvenirError

Words = str | Sequence[str | None]
"""A caption of all frames, or one for each; none: nothing is said of it."""


def laid(
    taken: Mapping[str, Signal],
    clip: Clip,
    horizon: int,
    actions: Tensor | None = None,
    text: Words | None = None,
) -> dict[str, Tensor]:
    """Lay what a clip holds, and what is given for `horizon` frames after it, `1 T s` each.

    `taken` is what a world takes. `actions` `F a`: row i leads to imagined frame i. Raises
    AvenirError for what it does not take, and for actions of another size.
    """
    check_taken(taken, actions, text)
    seen, signals = clip.num_frames, {}
    for name, signal in taken.items():
        signals[name] = torch.full((seen + horizon, signal.size), torch.nan)
        if name in clip.signals:
            signals[name][:seen] = clip.signals[name]
        if name == "cameras":  # they stay where they are
            signals[name][seen:] = signals[name][seen - 1]
    if actions is not None:
        _check(actions, taken["actions"].size)
        signals["actions"][seen - 1 : seen - 1 + horizon][: len(actions)] = actions[:horizon]
    if text:
        captions = captioned(taken["caption"], text, horizon)
        signals["caption"][seen : seen + len(captions)] = captions
    return {name: signal[None] for name, signal in signals.items()}


def laid_around(
    taken: Mapping[str, Signal], before: Clip, after: Clip, hole: int
) -> dict[str, Tensor]:
    """Lay what clips on both sides of a hole hold; what is inside is unknown."""
    signals = laid(taken, before, hole + after.num_frames)
    for name in signals.keys() & after.signals.keys():
        signals[name][0, -after.num_frames :] = after.signals[name]
    return signals


def check_views(views: Collection[int], count: int) -> Bool[Tensor, " views"]:
    """Mark some of `count` views, counted from 0; AvenirError for none, all, or one more."""
    if not 0 < len(set(views)) < count or not set(views) <= set(range(count)):
        raise AvenirError(
            f"views {sorted(views)} were asked for of {count}, counted from 0: name some of them, "
            "and leave one at least to imagine them from"
        )
    return torch.tensor([view in views for view in range(count)])


def check_taken(taken: Mapping[str, Signal], actions: Tensor | None, text: Words | None) -> None:
    """Refuse what a world does not take."""
    for given, name, words in ((actions, "actions", "actions were"), (text, "caption", "text was")):
        if given is not None and name not in taken:
            raise AvenirError(f"{words} given to a world that was trained without any")


def captioned(signal: Signal, text: Words, num_frames: int) -> Tensor:
    """Write a caption for each of so many frames, or for as many as there are, `T s`."""
    if isinstance(text, str):
        return signal.written(text).expand(num_frames, -1)
    silence = torch.full((signal.size,), torch.nan)
    rows = [silence if words is None else signal.written(words) for words in text[:num_frames]]
    return torch.stack(rows)


def _check(actions: Tensor, size: int) -> None:
    if actions.dim() != 2 or actions.shape[1] != size:
        raise AvenirError(
            f"actions of shape {tuple(actions.shape)} were given; this world takes "
            f"`F {size}`: one row for each imagined frame"
        )
