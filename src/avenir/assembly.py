"""From a card to the roles it describes, weights drawn at random; what does not fit is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from avenir.card import Card
from avenir.conditioners import Conditioner
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.finite import check_weights
from avenir.predictors import LatentShape, Predictor
from avenir.registry import find, parse


class Roles(NamedTuple):
    """The parts of a world; an encoder on its own has no others."""

    encoder: Encoder
    conditioner: Conditioner | None = None
    predictor: Predictor | None = None


def assembled(card: Card, teacher: Encoder | None = None) -> Roles:
    """Make the roles that a card describes.

    An encoder that has a teacher gets the one given, or else one that is made as well. Raises
    AvenirError for parts that do not fit each other.
    """
    encoder = _make_encoder(card.encoder, teacher)
    encoder.views = card.views
    if card.views > 1 and card.size[1] % (card.views * encoder.compression.w):
        raise AvenirError(
            f"frames of {card.views} views are {card.size[1]} pixels wide; each view must be whole "
            f"blocks of {encoder.compression.w} pixels: set data.size"
        )
    if card.predictor is None:
        return Roles(encoder)
    predictor = _make_predictor(card, encoder)
    if card.conditioner is None:
        return Roles(encoder, None, predictor)
    return Roles(encoder, _make_conditioner(card, encoder, predictor.width), predictor)


def fill(world: nn.Module, weights: Mapping[str, Tensor], folder: str | Path) -> None:
    """Give a world the weights of a folder; AvenirError when they do not fit, or are not finite."""
    try:
        world.load_state_dict(weights)
    except RuntimeError:
        raise AvenirError(
            f"the weights in {str(folder)!r} do not fit what its card describes: it was "
            "written by another version of avenir; use that one, or train again elsewhere"
        ) from None
    check_weights(world, repr(str(folder)))


def _make_encoder(table: dict[str, Any], teacher: Encoder | None = None) -> Encoder:
    if "teacher" not in table:
        return _make("encoders", table)
    return _make("encoders", table, teacher or _make_encoder(table["teacher"]))


def _make_predictor(card: Card, encoder: Encoder) -> Predictor:
    assert card.predictor is not None
    _, h, w = encoder.compression.latent_shape(1, *card.size)
    shape = LatentShape(encoder.channels, h, w, encoder.vocabulary, card.views, _looks(card))
    predictor: Predictor = _make("predictors", card.predictor, shape)
    guidance = getattr(getattr(predictor.config, "sampling", None), "guidance", None)
    parts = (card.conditioner or {}).get("parts", {})
    if isinstance(guidance, dict) and (unknown := guidance.keys() - parts.keys()):
        raise AvenirError(
            f"predictor.sampling.guidance names {sorted(unknown)}; what steers has the parts "
            f"{sorted(parts)}: name those of a conditioner of kind 'joint', or give one number"
        )
    if card.views > 1 and not predictor.tells_views_apart:
        raise AvenirError(
            f"predictor {card.predictor['kind']!r} takes one view and the data has {card.views} "
            "side by side: take kind 'flow', or data of one camera"
        )
    if shape.context and not predictor.looks_at_context:
        raise AvenirError(
            f"predictor {card.predictor['kind']!r} is steered by a vector for every frame, and "
            f"conditioner {(card.conditioner or {})['kind']!r} gives things to look at: take "
            "predictor.kind='flow' (of kind 'text_encoder' into='modulation' gives a vector)"
        )
    return predictor


def _looks(card: Card) -> bool:
    """Say whether what steers has things to look at."""
    if card.conditioner is None:
        return False
    kind = find("conditioners", card.conditioner["kind"])
    return kind.gives_context(parse("conditioners", card.conditioner))


def _make_conditioner(card: Card, encoder: Encoder, width: int) -> Conditioner:
    assert card.conditioner is not None
    sizes = {name: signal.size for name, signal in card.signals.items()}
    settings = parse("conditioners", card.conditioner)
    kind = find("conditioners", card.conditioner["kind"])
    needed = kind.needs(settings)
    if missing := set(needed) - set(sizes):
        raise AvenirError(
            f"conditioner {card.conditioner['kind']!r} needs {sorted(missing)}; the data has "
            f"{sorted(sizes) or 'no signals'}: use data with them, or drop the conditioner"
        )
    return kind(settings, sizes, encoder.compression.t, width, encoder.channels)


def _make(role: str, table: dict[str, Any], *parts: Any) -> Any:
    return find(role, table["kind"])(parse(role, table), *parts)
