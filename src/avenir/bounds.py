"""What is built is no larger than the file that is to fill it.

A card is a few hundred bytes and may ask for anything. Nothing that it asks for takes memory on the
device `meta`, and building ends soon after the last parameter that the file has numbers for.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from avenir.errors import AvenirError

_PARTS = 1000
"""Modules that hold no parameters, activations and containers, beside one for every number."""


@contextmanager
def at_most(numbers: int, whose: str) -> Iterator[None]:
    """Build modules, within, of about `numbers` parameters; AvenirError, of `whose`, at far more.

    Up to twice as many pass: a norm of weights registers them a second time, and weights that are
    missing are named better by who looks for them. Counts what this thread builds.
    """
    here, made, parts = threading.get_ident(), 0, 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        if parameter is not None and threading.get_ident() == here:
            old = module._parameters.get(name)
            made += parameter.numel() - (0 if old is None else old.numel())
            check(made <= 2 * numbers)

    def count_parts(module: nn.Module, name: str, part: nn.Module | None) -> None:
        nonlocal parts
        if threading.get_ident() == here:
            parts += 1
            check(parts <= numbers + _PARTS)

    def check(fits: bool) -> None:
        if not fits:
            raise AvenirError(f"{whose} describes far more than the {numbers:,} numbers there are")

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_module_registration_hook(count_parts),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def on_meta() -> bool:
    """Say whether what is built now takes no memory, and holds no numbers."""
    return torch.get_default_device().type == "meta"
