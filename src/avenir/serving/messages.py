"""What pages say and are told: JSON, `{"do": …}`, that is checked before anything is done.

Knows signals; no worlds and no sockets.
"""

import json
from typing import Any

import numpy as np

from avenir.errors import AvenirError
from avenir.serving.playthrough import MOST_PUSH
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
        said = json.loads(text) if short or text.startswith('{"do":"open"') else {}
    except (ValueError, RecursionError):
        said = None
    what = said.get("do") if isinstance(said, dict) else None
    if not short and what != "open":
        raise AvenirError(f"a message of {len(text):,} letters was sent; at most {MOST_LETTERS:,}")
    if not isinstance(said, dict) or not isinstance(what, str) or what not in _VERBS:
        raise AvenirError(f"a message was sent that says nothing; say do: {', '.join(_VERBS)}")
    _VERBS[what](said)
    return said


def written(words: dict[str, Any]) -> str:
    """Write what a page is sent; a number that is not finite, of which JSON knows none, is null."""
    try:
        return json.dumps(words, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(words), parse_constant=lambda _: None))


def whole(said: dict[str, Any], name: str) -> int:
    """Return a whole number of a message; 0 where it says none."""
    value = said.get(name, 0)
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise AvenirError(f"{name} was given as {value!r}; say a whole number from 0 on")
    return value


def offered(name: str, signal: Signal) -> dict[str, Any]:
    """Describe a signal that pages may tell; a choice is told by one of its names."""
    return {
        "name": name,
        "size": signal.size,
        "names": signal.names,
        "choice": signal.is_one_hot,
        "low": signal.low,
        "high": signal.high,
    }


def _check_nothing(said: dict[str, Any]) -> None:
    """Take what says all by its name."""


def _check_keys(said: dict[str, Any]) -> None:
    held, press = said.get("held"), said.get("press")
    if not isinstance(held, list) or not all(isinstance(key, str) for key in held):
        raise AvenirError('keys were said wrongly; say {"do": "keys", "held": ["ArrowUp"]}')
    if not (isinstance(press, int | float) and abs(press) < 2**53):
        press = None
    said["press"] = press


def _check_show(said: dict[str, Any]) -> None:
    if not isinstance(said.get("stages"), list):
        raise AvenirError('stages were said wrongly; say {"do": "show", "stages": ["dream"]}')


def _check_open(said: dict[str, Any]) -> None:
    if not isinstance(said.get("playthrough"), str):
        raise AvenirError("a playthrough was sent that is no text")


def _check_words(said: dict[str, Any]) -> None:
    if not isinstance(said.get("text"), str):
        raise AvenirError('words were said wrongly; say {"do": "say", "text": "a plane flies in"}')


def _check_tell(said: dict[str, Any]) -> None:
    name, value = said.get("signal"), said.get("value")
    numbers = value if isinstance(value, list) else []
    # NaN, and whole numbers that are too long for any other, are within no bounds.
    finite = all(isinstance(n, int | float) and abs(n) <= _LARGEST for n in numbers)
    if not isinstance(name, str) or not isinstance(value, str | list | None) or not finite:
        raise AvenirError(
            "a signal was told wrongly; say a name of it, finite numbers, or null: "
            '{"do": "tell", "signal": "weather", "value": "fog"}'
        )


def _check_push(said: dict[str, Any]) -> None:
    amount = said.get("amount")
    # NaN, which JSON can say as well, is within no bounds.
    if not (isinstance(amount, int | float) and abs(amount) <= MOST_PUSH):
        raise AvenirError(
            f"a push was said wrongly; say an amount from {-MOST_PUSH:g} to {MOST_PUSH:g}: "
            '{"do": "push", "factor": 0, "amount": 1}'
        )
    whole(said, "factor")


_VERBS = {
    "keys": _check_keys,
    "go": _check_nothing,
    "pause": _check_nothing,
    "show": _check_show,
    "begin": _check_nothing,
    "rewind": _check_nothing,
    "branch": _check_nothing,
    "step": _check_nothing,
    "keep": _check_nothing,
    "open": _check_open,
    "say": _check_words,
    "tell": _check_tell,
    "push": _check_push,
}
