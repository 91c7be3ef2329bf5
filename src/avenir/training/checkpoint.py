"""The state of a run on disk: everything that resuming bit for bit needs, in one safetensors file.

A kill at any moment leaves one whole state, and damage is noticed. Holds no code.
"""

from pathlib import Path

from torch import Tensor, nn

from avenir.errors import AvenirError, DamagedError
from avenir.tensors import load_tensors, save_tensors
from avenir.training.ema import EMA
from avenir.training.optim import Optimiser

STATE = "state.safetensors"


def save_state(
    folder: Path, step: int, key: str, model: nn.Module, optimisers: list[Optimiser], ema: EMA
) -> None:
    """Write weights, average and optimisers as they are after `step` steps."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.average.items()}
    for number, optimiser in enumerate(optimisers):
        for index, state in enumerate(_states(optimiser)):
            tensors |= {f"optim.{number}.{index}.{name}": v for name, v in state.items()}
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_tensors(folder / STATE, whole, {"step": str(step), "key": key})


def load_state(
    folder: Path, steps: int, key: str, model: nn.Module, optimisers: list[Optimiser], ema: EMA
) -> int:
    """Restore a run of so many `steps` and return how many it has done.

    Raises DamagedError, and changes nothing, when the state is not as it was written or is of
    another run; AvenirError when another version of avenir wrote it.
    """
    tensors, about = load_tensors(folder / STATE)
    done = about.get("step", "")
    if about.get("key") != key:
        raise DamagedError(f"{str(folder / STATE)!r} is of another run")
    if not (done.isdecimal() and 0 <= int(done) <= steps):
        raise DamagedError(f"{str(folder / STATE)!r} is after step {done!r} of {steps}")
    try:
        model.load_state_dict(_under("model.", tensors))
        for name, value in ema.average.items():
            value.copy_(tensors[f"ema.{name}"])
    except (RuntimeError, KeyError):
        raise AvenirError(
            f"the unfinished run in {str(folder)!r} was written by another version of avenir: go "
            "on with that one, or remove the folder and begin anew"
        ) from None
    for number, optimiser in enumerate(optimisers):
        for index, parameter in enumerate(_parameters(optimiser)):
            state = _under(f"optim.{number}.{index}.", tensors)
            optimiser.state[parameter] = {
                name: value.to(parameter.device) for name, value in state.items()
            }
    return int(done)


def _parameters(optimiser: Optimiser) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _states(optimiser: Optimiser) -> list[dict[str, Tensor]]:
    return [optimiser.state[parameter] for parameter in _parameters(optimiser)]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
