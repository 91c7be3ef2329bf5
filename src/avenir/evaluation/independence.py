"""Which evaluator may judge: one that shares no weights, objective or recordings with the judged.

Reads cards only.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from avenir.card import Card, parse_card
from avenir.errors import AvenirError


def check_independent(evaluator: Card, teacher: Card) -> None:
    """Refuse an evaluator that shares weights, objective or training recordings with a teacher.

    Each side is its own run and every run it stands on, as far as the cards say: the `key`, `data`,
    `recordings` (or the two they lie `between`) and `parents` (cards by their role) of their
    provenance, and the encoders' kinds.
    """
    names = f"evaluator {evaluator.name!r} and teacher {teacher.name!r}"
    for ours in _lineage(evaluator):
        for theirs in _lineage(teacher):
            shared = _shared(ours, theirs)
            if shared is not None:
                raise AvenirError(
                    f"{names} share {shared}; a latent that was taught to please its judge proves "
                    "nothing: name an evaluator of another kind, trained on other recordings"
                )


def check_judge(evaluator: Card, judged: Card) -> None:
    """Refuse an evaluator that is the judged encoder, or shares something with its teachers."""
    key = evaluator.provenance.get("key")
    if key is not None and key in [card.provenance.get("key") for card in _lineage(judged)]:
        raise AvenirError(
            f"evaluator {evaluator.name!r} is part of {judged.name!r}, which it would judge: name "
            "another evaluator"
        )
    for card in _lineage(judged):
        teacher = card.provenance.get("parents", {}).get("teacher")
        if teacher is not None:
            check_independent(evaluator, parse_card(teacher))


def _lineage(card: Card) -> Iterator[Card]:
    """Yield a card and those of all runs it stands on."""
    yield card
    for parent in card.provenance.get("parents", {}).values():
        yield from _lineage(parse_card(parent))


def _shared(ours: Card, theirs: Card) -> str | None:
    """Say what two runs share; none when nothing."""
    key, data = ours.provenance.get("key"), ours.provenance.get("data")
    if key is not None and key == theirs.provenance.get("key"):
        return f"weights, those of run {key}"
    kind = ours.encoder.get("kind")
    if kind is not None and kind == theirs.encoder.get("kind"):
        return f"an objective, that of encoder kind {kind!r}"
    both = _seen_by_both(ours.provenance, theirs.provenance)
    if both is not None:
        return both
    known = [c.provenance.get("recordings") or c.provenance.get("between") for c in (ours, theirs)]
    if data is not None and data == theirs.provenance.get("data") and not all(known):
        return "training data, and no card says which recordings of it"
    return None


def _seen_by_both(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Say which training recordings two runs share; none when none is."""
    rows = [p["between"] for p in (ours, theirs) if p.get("between")]
    if len(rows) == 2:
        low, high = max(row[0] for row in rows), min(row[1] for row in rows)
        return f"training recordings, {low!r} to {high!r}" if low <= high else None
    seen, also_seen = (set(p.get("recordings", ())) for p in (ours, theirs))
    both = seen & also_seen
    if rows:
        both = {name for name in seen | also_seen if rows[0][0] <= name <= rows[0][1]}
    return f"{len(both)} training recordings, {min(both)!r} among them" if both else None
