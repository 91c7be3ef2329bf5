"""What is made of video is finite, or it is said why not: NaN would be shown as black, and told on.

Knows tensors and modules; no roles.
"""

from torch import Tensor, nn

from avenir.errors import AvenirError


def check_weights(module: nn.Module, where: str = "this world") -> None:
    """Raise AvenirError, naming the first and `where` they are, when weights are not finite."""
    broken = [name for name, value in module.state_dict().items() if not value.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 1} others" if len(broken) > 1 else ""
        raise AvenirError(
            f"the weights {broken[0]!r}{more} of {where} hold numbers that are not finite: "
            "training diverged, or the file is damaged; copy it again, or train at a lower rate"
        )


def finite(made: Tensor, module: nn.Module | None = None) -> Tensor:
    """Return what a module made; AvenirError where it is not finite, naming weights that are not.

    It costs a look at what was made, and at the weights only where that is not finite.
    """
    if made.isfinite().all():
        return made
    if module is not None:
        check_weights(module)
    raise AvenirError(
        "what it was told is so far from what the world was taught that nothing can be "
        "imagined: tell something else, or go back"
    )
