"""What steers a future, on one axis with its past: actions taken, words said, other signals told.

The action at frame k leads to frame k + 1; a caption says what its own frame shows, and so does any
other signal. What nobody said is NaN. Knows clips and signals; no model.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avenir.clip import Clip
from avenir.errors import AvenirError
from avenir.shapes import BOX_NUMBERS, Actions
from avenir.signals import Signal

Words = str | Sequence[str | None]
"""A caption of all frames, or one for each; none, or no words: nothing is said of it."""

Told = Mapping[str, Tensor]
"""Other signals by name: a row `s` for all frames, or `F s`, one for each."""


_REACH = 10
"""Times the width of what training saw, further than which nothing is believed."""

_GIVEN_APART = {"actions": "actions", "caption": "text"}
"""Signals that are not told by name, and what they are given as."""


def laid(
    taken: Mapping[str, Signal],
    clip: Clip,
    horizon: int,
    actions: Tensor | None = None,
    text: Words | None = None,
    told: Told | None = None,
) -> dict[str, Tensor]:
    """Lay what a clip holds, and what is given for `horizon` frames after it, `1 T s` each.

    `taken` is what a world takes. `actions` `F a`: row i leads to imagined frame i. Raises
    AvenirError for what it does not take, and for actions or signals of another size.
    """
    check_taken(taken, actions, text, told or ())
    seen, signals = clip.num_frames, {}
    for name, signal in taken.items():
        signals[name] = torch.full((seen + horizon, signal.size), torch.nan)
        if name in clip.signals:
            signals[name][:seen] = clip.signals[name]
        if name == "cameras":  # they stay where they are
            signals[name][seen:] = signals[name][seen - 1]
    if actions is not None:
        _check(actions, taken["actions"].size)
        _check_bounds("actions", taken["actions"], actions)
        signals["actions"][seen - 1 : seen - 1 + horizon][: len(actions)] = actions[:horizon]
    if text:
        captions = captioned(taken["caption"], text, horizon)
        signals["caption"][seen : seen + len(captions)] = captions
    for name, rows in (told or {}).items():
        ahead = _each_frame(name, rows, taken[name], horizon)
        signals[name][seen : seen + len(ahead)] = ahead
    return {name: signal[None] for name, signal in signals.items()}


def laid_around(
    taken: Mapping[str, Signal], before: Clip, after: Clip, hole: int
) -> dict[str, Tensor]:
    """Lay what clips on both sides of a hole hold; what is inside is unknown."""
    signals = laid(taken, before, hole + after.num_frames)
    for name in signals.keys() & after.signals.keys():
        signals[name][0, -after.num_frames :] = after.signals[name]
    return signals


def laid_ahead(
    taken: Mapping[str, Signal],
    batch_size: int,
    f_t: int,
    num_ahead: int,
    actions: Actions | None = None,
    text: Words | None = None,
    told: Told | None = None,
) -> dict[str, Tensor]:
    """Lay what is given for `num_ahead` latent frames behind one of which nothing is, `b T s` each.

    `actions` `b F a`: row i leads to frame i of those ahead. Raises AvenirError as `laid` does.
    """
    check_taken(taken, None, text, told or ())
    signals, num_frames = {}, (1 + num_ahead) * f_t
    if actions is not None:
        # Those into a latent frame begin with the one at the last frame before it.
        _check_bounds("actions", taken["actions"], actions)
        before = actions.new_full((len(actions), f_t - 1, actions.shape[-1]), torch.nan)
        signals = {"actions": torch.cat([before, actions, actions[:, :1] * torch.nan], dim=1)}
    if text:
        caption = captioned(taken["caption"], text, num_frames)
        signals["caption"] = caption.expand(batch_size, -1, -1)
    for name, rows in (told or {}).items():
        ahead = _each_frame(name, rows, taken[name], num_ahead * f_t)
        whole = ahead.new_full((num_frames, taken[name].size), torch.nan)
        whole[f_t : f_t + len(ahead)] = ahead
        signals[name] = whole.expand(batch_size, -1, -1)
    return signals


def check_views(views: Collection[int], count: int) -> Bool[Tensor, " views"]:
    """Mark some of `count` views, counted from 0; AvenirError for none, all, or one more."""
    if not 0 < len(set(views)) < count or not set(views) <= set(range(count)):
        raise AvenirError(
            f"views {sorted(views)} were asked for of {count}, counted from 0: name some of them, "
            "and leave one at least to imagine them from"
        )
    return torch.tensor([view in views for view in range(count)])


def check_taken(
    taken: Mapping[str, Signal],
    actions: Tensor | None,
    text: Words | None,
    told: Collection[str] = (),
) -> None:
    """Refuse what a world does not take; `told` names other signals."""
    for given, name, words in ((actions, "actions", "actions were"), (text, "caption", "text was")):
        if given is not None and name not in taken:
            raise AvenirError(f"{words} given to a world that was trained without any")
    others = sorted(taken.keys() - _GIVEN_APART.keys())
    for name in told:
        if name in _GIVEN_APART:
            raise AvenirError(
                f"{name!r} was told among other signals: it is given by itself, as "
                f"{_GIVEN_APART[name]!r}"
            )
        if name not in taken:
            raise AvenirError(
                f"{name!r} was told to a world that can be told {', '.join(others) or 'nothing'}: "
                "name signals that its conditioner reads"
            )


def captioned(signal: Signal, text: Words, num_frames: int) -> Tensor:
    """Write a caption for each of so many frames, or for as many as there are, `T s`."""
    if isinstance(text, str):
        return signal.encode_text(text).expand(num_frames, -1)
    silence = torch.full((signal.size,), torch.nan)
    rows = [silence if words is None else signal.encode_text(words) for words in text[:num_frames]]
    return torch.stack(rows)


def read_row(name: str, signal: Signal, value: str) -> Float[Tensor, " s"]:
    """Read what is told of a signal; boxes that are not said are not known.

    Raises AvenirError as `Signal.parse_row` does.
    """
    num_numbers = value.count(",") + 1
    if name == "boxes" and not num_numbers % BOX_NUMBERS:
        value += ",nan" * (signal.size - num_numbers)
    return signal.parse_row(value)


def _check(actions: Tensor, size: int) -> None:
    if actions.dim() != 2 or actions.shape[1] != size:
        raise AvenirError(
            f"actions of shape {tuple(actions.shape)} were given; this world takes "
            f"`F {size}`: one row for each imagined frame"
        )


def _each_frame(name: str, rows: Tensor, signal: Signal, num_frames: int) -> Float[Tensor, "F s"]:
    """Return a row for each of so many frames, or for as many as there are."""
    size = signal.size
    if rows.dim() not in (1, 2) or rows.shape[-1] != size:
        raise AvenirError(
            f"{name} of shape {tuple(rows.shape)} was told; this world takes `F {size}`, one row "
            f"for each imagined frame, or one row of {size} for all"
        )
    _check_bounds(name, signal, rows)
    return (rows.expand(num_frames, -1) if rows.dim() == 1 else rows[:num_frames]).float()


def _check_bounds(name: str, signal: Signal, rows: Float[Tensor, "*b s"]) -> None:
    """Refuse numbers that are infinite, or out of bounds by more than `_REACH` times their width.

    What is a little out of them is the user's to try.
    """
    rows = rows.cpu().double()
    low, high = (torch.tensor(bound).double() for bound in (signal.low, signal.high))
    wrong = rows.isinf()
    if signal.low:
        # Of what never changes nobody knows how far it may go.
        room = _REACH * torch.where(high > low, high - low, low.abs().clamp(min=1))
        wrong = wrong | (rows < low - room) | (rows > high + room)
    if not wrong.any():
        return
    column = int(wrong.reshape(-1, signal.size).any(0).nonzero()[0])
    value = float(rows[..., column][wrong[..., column]][0])
    which = f"number {column}" if column >= len(signal.names) else repr(signal.names[column])
    taught = f", {low[column]:g} to {high[column]:g}," if signal.low else ""
    raise AvenirError(
        f"{which} of {name} was given as {value:g}, so far from what the world was taught{taught} "
        "that nothing can be imagined: tell something else, or go back"
    )
