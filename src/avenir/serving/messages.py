"""What pages send and are sent: JSON, `{"do": …}`, that is checked before anything is done.

Knows signals; no worlds and no sockets.
"""

import json
from typing import Any

import numpy as np

from avenir.errors import AvenirError
from avenir.serving.playthrough import MOST_EDIT
from avenir.signals import Signal

MOST_BYTES = 2**21
"""Of a message that opens a playthrough; of any other `MOST_LETTERS`."""
MOST_LETTERS = 2**12
MOST_KEYS = 16
"""Held at once."""
_LARGEST = float(np.finfo(np.float32).max)
"""Worlds compute in 32 bits."""


def parsed(text: str | None) -> dict[str, Any]:
    """Read a message; AvenirError, in words, for one that means nothing."""
    if text is None:
        raise AvenirError("bytes were sent; messages are JSON")
    short = len(text) <= MOST_LETTERS
    try:
        message = json.loads(text) if short or text.startswith('{"do":"open"') else {}
    except (ValueError, RecursionError):
        message = None
    what = message.get("do") if isinstance(message, dict) else None
    if not short and what != "open":
        raise AvenirError(f"a message of {len(text):,} letters was sent; at most {MOST_LETTERS:,}")
    if not isinstance(message, dict) or not isinstance(what, str) or what not in _CHECKS:
        raise AvenirError(f"a message was sent that says nothing; say do: {', '.join(_CHECKS)}")
    _CHECKS[what](message)
    return message


def written(words: dict[str, Any]) -> str:
    """Write what a page is sent; a number that is not finite, of which JSON knows none, is null."""
    try:
        return json.dumps(words, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(words), parse_constant=lambda _: None))


def whole(message: dict[str, Any], name: str) -> int:
    """Return a whole number of a message; 0 where it says none."""
    value = message.get(name, 0)
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise AvenirError(f"{name} was given as {value!r}; say a whole number from 0 on")
    return value


def offered(name: str, signal: Signal) -> dict[str, Any]:
    """Describe a signal that pages may set; a choice is set by one of its names."""
    return {
        "name": name,
        "size": signal.size,
        "names": signal.names,
        "choice": signal.is_one_hot,
        "low": signal.low,
        "high": signal.high,
    }


def _check_nothing(message: dict[str, Any]) -> None:
    """Take what says all by its name."""


def _check_keys(message: dict[str, Any]) -> None:
    held, press = message.get("held"), message.get("press")
    if not isinstance(held, list) or not all(isinstance(key, str) for key in held):
        raise AvenirError('keys were sent wrongly; send {"do": "keys", "held": ["ArrowUp"]}')
    if not (isinstance(press, int | float) and abs(press) < 2**53):
        press = None
    message["press"] = press


def _check_show(message: dict[str, Any]) -> None:
    if not isinstance(message.get("pictures"), list):
        raise AvenirError('pictures were named wrongly; send {"do": "show", "pictures": ["world"]}')


def _check_open(message: dict[str, Any]) -> None:
    if not isinstance(message.get("playthrough"), str):
        raise AvenirError("a playthrough was sent that is no text")


def _check_text(message: dict[str, Any]) -> None:
    if not isinstance(message.get("text"), str):
        raise AvenirError(
            'a text was sent wrongly; send {"do": "text", "text": "a plane flies in"}'
        )


def _check_signal(message: dict[str, Any]) -> None:
    name, value = message.get("signal"), message.get("value")
    numbers = value if isinstance(value, list) else []
    # NaN, and whole numbers that are too long for any other, are within no bounds.
    finite = all(isinstance(n, int | float) and abs(n) <= _LARGEST for n in numbers)
    if not isinstance(name, str) or not isinstance(value, str | list | None) or not finite:
        raise AvenirError(
            "a signal was set wrongly; send a name of it, finite numbers, or null: "
            '{"do": "signal", "signal": "weather", "value": "fog"}'
        )


def _check_edit(message: dict[str, Any]) -> None:
    amount = message.get("amount")
    # NaN, which JSON can say as well, is within no bounds.
    if not (isinstance(amount, int | float) and abs(amount) <= MOST_EDIT):
        raise AvenirError(
            f"an edit was sent wrongly; send an amount from {-MOST_EDIT:g} to {MOST_EDIT:g}: "
            '{"do": "edit", "factor": 0, "amount": 1}'
        )
    whole(message, "factor")


_CHECKS = {
    "keys": _check_keys,
    "go": _check_nothing,
    "pause": _check_nothing,
    "show": _check_show,
    "start": _check_nothing,
    "rewind": _check_nothing,
    "branch": _check_nothing,
    "step": _check_nothing,
    "keep": _check_nothing,
    "open": _check_open,
    "text": _check_text,
    "signal": _check_signal,
    "edit": _check_edit,
}
