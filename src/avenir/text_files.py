"""Text files that a world of text continues, or whose holes it fills. Prints nothing."""

from collections.abc import Iterator
from pathlib import Path

from avenir.data.text import clip_of, text_of
from avenir.errors import AvenirError
from avenir.files import whole, write_whole
from avenir.world import World


def read_text(path: Path) -> bytes:
    """Read a text of one byte or more; AvenirError for a file that cannot be read, or is empty."""
    try:
        given = path.read_bytes()
    except OSError as error:
        raise AvenirError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    if not given:
        raise AvenirError(f"{str(path)!r} is empty; give a text of one byte or more")
    return given


def filled(world: World, given: bytes, hole: bytes, seed: int, out: Path) -> bytes:
    """Write a text with its first `hole` filled, and return what was filled in.

    Raises AvenirError for a text without such a hole between two parts of it.
    """
    before, found, after = given.partition(hole)
    if not found or not before or not after:
        raise AvenirError(
            f"--fill {hole.decode()!r} was given, and the text has no such hole between two parts "
            "of it: put it where something is missing"
        )
    tokenizer = world.card.tokenizer
    left, right = (clip_of(part, tokenizer=tokenizer) for part in (before, after))
    length = clip_of(hole, tokenizer=tokenizer).seconds
    made = text_of(world.infill(left, right, length, seed), tokenizer)
    write_whole(out, before + made + after)
    return made


def continued(world: World, given: bytes, num_tokens: int, seed: int, out: Path) -> Iterator[bytes]:
    """Write a text and what follows it, and yield what follows, piece by piece."""
    tokenizer = world.card.tokenizer
    with whole(out) as part, part.open("wb") as file:
        file.write(given)
        past = clip_of(given, tokenizer=tokenizer)
        for piece in world.stream(past, float(max(1, num_tokens)), seed=seed):
            more = text_of(piece, tokenizer)
            file.write(more)
            yield more
