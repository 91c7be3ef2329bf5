"""The state of a run on disk: everything that resuming bit for bit needs, in one safetensors file.

Written beside the old one and moved into its place, so that a kill at any moment leaves one whole
state. Holds no code.
"""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from avenir.errors import AvenirError
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
    partial = folder / f"{STATE}.partial"
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(whole, partial, {"step": str(step), "key": key})
    partial.replace(folder / STATE)


def load_state(folder: Path, model: nn.Module, optimisers: list[Optimiser], ema: EMA) -> int:
    """Restore a run and return how many steps it has done.

    Raises AvenirError when another version of avenir wrote it.
    """
    with safe_open(folder / STATE, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        model.load_state_dict(_under("model.", tensors))
    except RuntimeError:
        raise AvenirError(
            f"the unfinished run in {str(folder)!r} was written by another version of avenir: go "
            "on with that one, or remove the folder and begin anew"
        ) from None
    for name, value in _under("ema.", tensors).items():
        ema.average[name].copy_(value)
    for number, optimiser in enumerate(optimisers):
        for index, parameter in enumerate(_parameters(optimiser)):
            state = _under(f"optim.{number}.{index}.", tensors)
            optimiser.state[parameter] = {
                name: value.to(parameter.device) for name, value in state.items()
            }
    return int(metadata["step"])


def _parameters(optimiser: Optimiser) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _states(optimiser: Optimiser) -> list[dict[str, Tensor]]:
    return [optimiser.state[parameter] for parameter in _parameters(optimiser)]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
