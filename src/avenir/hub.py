"""Public models, opened through transformers: found, told apart, hashed and kept as they are.

A kind that reads with one is `Frozen`. Only such kinds import this, so that nothing else needs the
extra `hub`.
"""

import copy
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import transformers
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers.utils import logging

from avenir.bounds import at_most, on_meta
from avenir.errors import AvenirError
from avenir.tensors import headers_of


class Frozen(nn.Module):
    """A module that reads with a public model, which is not its own to save, count or train.

    What it saves in its stead is a sha256. The model follows it to its device and precision. A copy
    reads with the same model, which may be far larger than all else: let it stay where that is.
    """

    setting: ClassVar[str]
    """Which setting of which kind names the model: where errors send who has lost it. No path in a
    recipe, as a kind may stand alone or be a part of others."""
    model_name: str
    sha256: str

    def keep(self, model: Any, name: str, files: Iterable[Path]) -> None:
        """Keep a model that is made of `files`, out of reach of what goes over parameters."""
        self._public = [model.requires_grad_(False).eval()]
        self.model_name = name
        self.sha256 = "00" * 32 if on_meta() else sha256(files)  # of what is not read

    @property
    def public(self) -> Any:
        """The model."""
        return self._public[0]

    def get_extra_state(self) -> Tensor:
        """Return what stands for the model in a saved folder: its sha256, 32 bytes."""
        return torch.tensor(list(bytes.fromhex(self.sha256)), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Check that the model is the one that was saved by name; AvenirError if it is another."""
        saved = bytes(state.tolist()).hex()
        if saved != self.sha256:
            raise AvenirError(
                f"the files of {self.model_name!r} have changed: sha256 {saved[:12]}… is "
                f"expected, {self.sha256[:12]}… is there: put the former back, or set "
                f"{self.setting} in card.json to a folder that holds them"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self.public)] = self.public
        made = memo[id(self)] = type(self).__new__(type(self))
        made.__setstate__(copy.deepcopy(self.__dict__, memo))
        return made

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.public._apply(fn, recurse)
        return super()._apply(fn, recurse)


def folder_of(name: str, setting: str) -> Path:
    """Find a model on this machine, and only when it is not there on the hub.

    The hub is never asked for a path. Raises AvenirError, which sends to the `setting` that names
    it, when it is nowhere.
    """
    local = Path(name)
    with suppress(RuntimeError):  # ~somebody, whom this machine does not know
        local = local.expanduser()
    if local.is_dir():
        return local
    cure = (
        f"set {setting}, in the recipe or in card.json of a trained world, to a folder that "
        "`save_pretrained` wrote, by its absolute path (a relative one begins where the command is "
        "run), or to a name that `hf download` has fetched (after `hf auth login`, where a licence "
        "must be accepted)"
    )
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise AvenirError(
            f"the model {name!r} is no folder; a path is not asked of the Hugging Face hub: {cure}"
        )
    wanted = ["*.json", "*.safetensors"]
    try:
        cached = Path(snapshot_download(name, local_files_only=True, allow_patterns=wanted))
        if any(cached.glob("*.safetensors")):
            return cached
    except (OSError, ValueError):
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # a network fails in many ways; each means that there is no model
        raise AvenirError(
            f"the model {name!r} is no folder, is not in the cache of the Hugging Face hub, and "
            f"could not be fetched ({type(error).__name__}): {cure}"
        ) from None


def type_of(folder: Path, name: str, known: Collection[str]) -> str:
    """Return the `model_type` of config.json; AvenirError if it is not one of those `known`."""
    try:
        kind = json.loads((folder / "config.json").read_text())["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    if not isinstance(kind, str) or not weights_in(folder):
        raise AvenirError(
            f"{name!r} holds no model: it needs config.json, which says the model's type, and its "
            "weights as safetensors: give a folder that `save_pretrained` wrote"
        )
    if kind not in known:
        raise AvenirError(f"{name!r} is a model of type {kind!r}: give one of {', '.join(known)}")
    return kind


def opened(folder: Path, model: str, name: str, **build: Any) -> Any:
    """Open a `model` of transformers, a class, in single precision.

    Raises AvenirError when files are damaged, a weight is missing, none being drawn at random, or
    config.json describes more than they hold. On the device `meta` it is its configuration alone.
    """
    try:
        headers = [headers_of(path) for path in weights_in(folder)]
        held = sum(prod(header.shape) for each in headers for header in each.values())
        if on_meta():
            stand_in = nn.Module()
            stand_in.config = getattr(transformers, model).config_class.from_pretrained(folder)
            return stand_in
        with _silence(), at_most(held, "config.json"):
            made, found = getattr(transformers, model).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **build,
            )
    except Exception as error:  # every model trips over a wrong config.json in its own way
        reason = " ".join(str(error).split())
        raise AvenirError(f"the model {name!r} is damaged: {reason}; fetch it again") from None
    if found["missing_keys"]:
        raise AvenirError(
            f"the model {name!r} lacks {', '.join(sorted(found['missing_keys'])[:3])}: its weights "
            "do not fit its config.json; fetch both again"
        )
    return made


def weights_in(folder: Path) -> list[Path]:
    """List the files of weights, shards in their order."""
    return sorted(folder.glob("*.safetensors"))


def sha256(files: Iterable[Path]) -> str:
    """Hash files as they lie there: of one file, the hash that its hub page shows."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(1 << 24):
                digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers from reporting what it skips, such as the text tower of SigLIP."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
