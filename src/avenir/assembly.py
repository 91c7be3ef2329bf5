"""From a card to the roles it describes, weights drawn at random; what does not fit is refused."""

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from avenir import renamed
from avenir.bounds import at_most
from avenir.card import WEIGHTS, Card, no_world
from avenir.conditioners import Conditioner, ConditionSpec
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.finite import check_weights
from avenir.predictors import LatentShape, Predictor
from avenir.registry import code_in, find, parse
from avenir.tensors import Header, headers_of


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


def check_fits(card: Card, folder: Path) -> None:
    """Check that the weights in a folder are those of what its card describes, building nothing.

    Names and shapes are held against the roles on the device `meta`. Raises AvenirError when they
    are others. Code that is not ours may not know that device: what is trusted is not looked at.
    """
    path = folder / WEIGHTS
    if not path.exists():
        raise no_world(folder, f"{WEIGHTS} is missing")
    headers = headers_of(path)
    names = _names(headers, card)
    there = {names[name]: header for name, header in headers.items()}
    if code_in(card.model_dump(include=set(Roles._fields))):
        return
    numbers = sum(prod(header.shape) for header in there.values())
    try:
        with torch.device("meta"), at_most(numbers, f"the card in {str(folder)!r}"):
            roles = assembled(card)
    except AvenirError:
        raise
    except Exception as error:  # every kind trips over settings that cannot be in its own way
        raise AvenirError(
            f"the card in {str(folder)!r} describes what cannot be built: {error}"
        ) from error
    expected = {
        f"{name}.{key}": Header(tuple(value.shape), value.is_floating_point())
        for name, role in zip(Roles._fields, roles, strict=True)
        if role is not None
        for key, value in role.state_dict().items()
    }
    if expected != there:
        raise _unfit(folder)


def load_weights(world: nn.Module, card: Card, folder: Path) -> None:
    """Give a world the weights of a folder; AvenirError when they do not fit, or are not finite."""
    try:
        weights = load_file(folder / WEIGHTS)
        names = _names(weights, card)
        world.load_state_dict({names[name]: value for name, value in weights.items()})
    except RuntimeError:
        raise _unfit(folder) from None
    except SafetensorError as error:
        raise AvenirError(f"{str(folder)!r} holds a damaged world: {error}") from None
    check_weights(world, repr(str(folder)))


def _names(names: Iterable[str], card: Card) -> dict[str, str]:
    """Say what the weights in a folder are called today; `card` as it was read there."""
    return renamed.weights(names) if card.format < renamed.FORMAT else {n: n for n in names}


def _unfit(folder: Path) -> AvenirError:
    return AvenirError(
        f"the weights in {str(folder)!r} do not fit what its card describes: it was "
        "written by another version of avenir; use that one, or train again elsewhere"
    )


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
    spec = ConditionSpec(sizes, encoder.compression.t, width, encoder.channels)
    return make_conditioner(card.conditioner, spec)


def make_conditioner(table: Mapping[str, Any], spec: ConditionSpec) -> Conditioner:
    """Make the conditioner that a table of settings describes, and first those it is made of."""
    parts = parse("conditioners", table).model_dump().get("parts", {})
    if not parts:
        return _make("conditioners", table, spec)
    made = {kind: make_conditioner(part, spec) for kind, part in parts.items()}
    return _make("conditioners", table, spec, made)


def _make(role: str, table: Mapping[str, Any], *parts: Any) -> Any:
    return find(role, table["kind"])(parse(role, table), *parts)
