"""What steers a world: `Controls` is the one value for it, given by a user, a player or a planner.

The `build_*` functions put controls and what a clip holds on one time axis. The action at frame k
leads to frame k + 1; a caption, and any other signal, describes its own frame. What is unknown is
NaN. Knows clips and signals; no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from avenir.clip import Clip
from avenir.errors import AvenirError
from avenir.shapes import BOX_NUMBERS, Actions
from avenir.signals import Role, Signal, name_of, role_of

Captions = str | Sequence[str | None]
"""A caption of all frames, or one for each; none, or an empty one: nothing is known of it."""

_REACH = 10
"""How many widths of the training range a number may lie outside of it."""

_OWN_ARGUMENT: dict[Role, str] = {"action": "actions", "caption": "text"}
"""Roles of signals that have a field of their own in `Controls`."""


@dataclass(frozen=True, eq=False)
class Controls:
    """What a world is given for the frames to come, from the next one on.

    Nothing is required: a world goes on by itself where nothing is given. Raises AvenirError for
    values of other types or shapes; `check` compares them with what a world takes.
    """

    actions: Float[Tensor, "*b F a"] | None = None
    """Row i leads to frame i; fewer rows than frames leave the rest unknown. One row `a` is held
    for all frames."""
    text: Captions | None = None
    """A caption of all frames, or one for each."""
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    """Any other signals by name: a row `s` for all frames, or `F s`, one for each."""

    def __post_init__(self) -> None:
        if self.actions is not None and not _is_table(self.actions, most=3):
            raise AvenirError(
                f"actions were given as {_kind_of(self.actions)}; give a tensor `F a`, one row for "
                "each imagined frame, or one row `a` that is held"
            )
        texts = [self.text] if isinstance(self.text, str) else list(self.text or ())
        if not all(isinstance(each, str | None) for each in texts):
            raise AvenirError(
                f"text was given as {self.text!r}; give one caption, or one for each frame"
            )
        for name, rows in self.signals.items():
            if not _is_table(rows, most=2):
                raise AvenirError(
                    f"{name!r} was given as {_kind_of(rows)}; give a tensor `F s`, one row for "
                    "each imagined frame, or one row `s` for all"
                )

    def __repr__(self) -> str:
        parts = [] if self.actions is None else [f"actions {_shape_of(self.actions)}"]
        if self.text:
            one = isinstance(self.text, str)
            parts.append(f"text {self.text!r}" if one else f"text of {len(self.text)} frames")
        parts += [f"{name} {_shape_of(rows)}" for name, rows in self.signals.items()]
        return f"Controls({', '.join(parts) or 'none'})"

    @classmethod
    def of(
        cls, actions: Tensor | None, text: Captions | None, controls: "Controls | None"
    ) -> "Controls":
        """Return the controls that were given, or make them of actions and text.

        Raises AvenirError when both were given.
        """
        if controls is None:
            return cls(actions, text)
        if actions is not None or text is not None:
            raise AvenirError("controls= was given beside actions= or text=: put all in controls=")
        return controls

    def check(self, taken: Mapping[str, Signal]) -> None:
        """Refuse, by AvenirError, what a world that takes these signals cannot be given."""
        if self.actions is not None and name_of(taken, "action") is None:
            raise AvenirError("actions were given to a world that was trained without any")
        if self.text is not None and name_of(taken, "caption") is None:
            raise AvenirError("text was given to a world that was trained without any")
        for name in self.signals:
            check_name(taken, name)
        if self.actions is not None:
            name = name_of(taken, "action")
            assert name is not None
            size = taken[name].size
            if self.actions.shape[-1] != size:
                raise AvenirError(
                    f"actions of shape {tuple(self.actions.shape)} were given; this world takes "
                    f"`F {size}`: one row for each imagined frame"
                )
            _check_bounds(name, taken[name], self.actions)
        for name, rows in self.signals.items():
            size = taken[name].size
            if rows.shape[-1] != size:
                raise AvenirError(
                    f"{name} of shape {tuple(rows.shape)} was given; this world takes `F {size}`, "
                    f"one row for each imagined frame, or one row of {size} for all"
                )
            _check_bounds(name, taken[name], rows)


def given_by_name(taken: Mapping[str, Signal]) -> dict[str, Signal]:
    """Return the signals that controls give by their names: all but actions and captions."""
    return {name: signal for name, signal in taken.items() if signal.role not in _OWN_ARGUMENT}


def check_name(taken: Mapping[str, Signal], name: str) -> None:
    """Refuse a signal that a world does not take, or that has a field of its own."""
    own = _OWN_ARGUMENT.get(taken[name].role if name in taken else role_of(name))
    if own is not None:
        raise AvenirError(
            f"{name!r} was given among other signals: it is given by itself, as {own!r}"
        )
    if name not in taken:
        others = ", ".join(sorted(given_by_name(taken))) or "nothing"
        raise AvenirError(
            f"{name!r} was given to a world that takes {others} by name: name signals that its "
            "conditioner reads"
        )


def build_signals(
    taken: Mapping[str, Signal], clip: Clip, horizon: int, controls: Controls | None = None
) -> dict[str, Tensor]:
    """Join what a clip holds with controls of `horizon` frames after it, `1 T s` each.

    `taken` is what a world takes. Raises AvenirError for what it does not take, and for actions or
    signals of another size.
    """
    controls = controls or Controls()
    controls.check(taken)
    past, signals = clip.num_frames, {}
    for name, signal in taken.items():
        signals[name] = torch.full((past + horizon, signal.size), torch.nan)
        if name in clip.signals:
            signals[name][:past] = clip.signals[name]
        if signal.role == "camera":  # they stay where they are
            signals[name][past:] = signals[name][past - 1]
    if controls.actions is not None:
        actions = _each_frame(controls.actions, horizon)
        ahead = signals[_named(taken, "action")][past - 1 : past - 1 + horizon]
        ahead[: len(actions)] = actions
    if controls.text:
        name = _named(taken, "caption")
        captions = encode_captions(taken[name], controls.text, horizon)
        signals[name][past : past + len(captions)] = captions
    for name, rows in controls.signals.items():
        ahead = _each_frame(rows, horizon)
        signals[name][past : past + len(ahead)] = ahead
    return {name: signal[None] for name, signal in signals.items()}


def build_signals_around(
    taken: Mapping[str, Signal], before: Clip, after: Clip, hole: int
) -> dict[str, Tensor]:
    """Join what clips on both sides of a hole hold, `1 T s`; what is inside is unknown."""
    signals = build_signals(taken, before, hole + after.num_frames)
    for name in signals.keys() & after.signals.keys():
        signals[name][0, -after.num_frames :] = after.signals[name]
    return signals


def build_step_signals(
    taken: Mapping[str, Signal], batch_size: int, f_t: int, num_ahead: int, controls: Controls
) -> dict[str, Tensor]:
    """Put controls of `num_ahead` latent frames behind an unknown one, `b T s` each.

    Of actions there is one row, which is held, or one for every frame ahead. Raises AvenirError as
    `build_signals` does.
    """
    controls.check(taken)
    signals, num_frames = {}, (1 + num_ahead) * f_t
    if controls.actions is not None:
        actions = _step_actions(controls.actions, batch_size, num_ahead * f_t)
        # Those into a latent frame begin with the one at the last frame before it.
        unknown = actions.new_full((len(actions), f_t - 1, actions.shape[-1]), torch.nan)
        rows = torch.cat([unknown, actions, actions[:, :1] * torch.nan], dim=1)
        signals[_named(taken, "action")] = rows
    if controls.text:
        name = _named(taken, "caption")
        captions = encode_captions(taken[name], controls.text, num_frames)
        signals[name] = captions.expand(batch_size, -1, -1)
    for name, rows in controls.signals.items():
        ahead = _each_frame(rows, num_ahead * f_t)
        whole = ahead.new_full((num_frames, taken[name].size), torch.nan)
        whole[f_t : f_t + len(ahead)] = ahead
        signals[name] = whole.expand(batch_size, -1, -1)
    return signals


def encode_captions(signal: Signal, text: Captions, num_frames: int) -> Float[Tensor, "T s"]:
    """Write a caption for each of so many frames, or for as many as there are, `T s`."""
    if isinstance(text, str):
        return signal.encode_text(text).expand(num_frames, -1)
    unknown = torch.full((signal.size,), torch.nan)
    captions = text[:num_frames]
    return torch.stack([unknown if each is None else signal.encode_text(each) for each in captions])


def parse_row(signal: Signal, value: str) -> Float[Tensor, " s"]:
    """Read a row of a signal, as `Signal.parse_row` does; boxes that are left out are unknown.

    Raises AvenirError as that does.
    """
    num_numbers = value.count(",") + 1
    if signal.role == "box" and not num_numbers % BOX_NUMBERS:
        value += ",nan" * (signal.size - num_numbers)
    return signal.parse_row(value)


def _named(taken: Mapping[str, Signal], role: Role) -> str:
    name = name_of(taken, role)
    assert name is not None  # `Controls.check` refuses what is not taken
    return name


def _step_actions(actions: Tensor, batch_size: int, num_frames: int) -> Actions:
    """Return actions `b F a` of a step, or of several."""
    rows = actions.float()
    rows = rows[None] if rows.dim() == 1 else rows
    if rows.shape[-2] == 1:
        rows = rows.expand(*rows.shape[:-2], num_frames, -1)
    if rows.shape[-2] != num_frames or (rows.dim() == 3 and len(rows) != batch_size):
        raise AvenirError(
            f"actions of shape {tuple(actions.shape)} were given for {num_frames} frames of "
            f"{batch_size} futures; give `{batch_size} {num_frames} {rows.shape[-1]}`, or one row "
            "for all frames"
        )
    return rows if rows.dim() == 3 else rows.expand(batch_size, -1, -1)


def _each_frame(rows: Tensor, num_frames: int) -> Float[Tensor, "F s"]:
    """Return a row for each of so many frames, or for as many as there are."""
    if rows.dim() > 2:
        raise AvenirError(
            f"rows of shape {tuple(rows.shape)} were given for one clip; give `F s`, or one row"
        )
    return (rows.expand(num_frames, -1) if rows.dim() == 1 else rows[:num_frames]).float()


def _is_table(value: object, most: int) -> bool:
    return isinstance(value, Tensor) and 1 <= value.dim() <= most and not value.is_complex()


def _kind_of(value: object) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return f"a {type(value).__name__}{shape}"


def _shape_of(rows: Tensor) -> str:
    return "×".join(map(str, rows.shape))


def _check_bounds(name: str, signal: Signal, rows: Float[Tensor, "*b s"]) -> None:
    """Refuse numbers that are infinite, or out of bounds by more than `_REACH` times their width.

    What is a little out of them is the user's to try.
    """
    rows = rows.cpu().double()
    low, high = (torch.tensor(bound).double() for bound in (signal.low, signal.high))
    wrong = rows.isinf()
    if signal.low:
        # The width of what never changes is unknown.
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
        "that nothing can be imagined: give something else"
    )
