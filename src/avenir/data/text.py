"""Text as a video of one pixel: every token is a frame, a recording is a file.

A token is a byte, or a piece of text that occurs often. A frame's one pixel holds its number in
base 256, red first, so that text goes the way of all video, to the encoder of kind `text`. A token
lasts a second. Knows files; knows nothing of models.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from avenir.clip import Clip
from avenir.config import Config
from avenir.data import Recording, Skipped, Source, Window
from avenir.errors import AvenirError
from avenir.signals import Signal
from avenir.splits import VALIDATION_FRACTION, Split, Splits
from avenir.tables import printable

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextFolderConfig(Config):
    """A folder of text files."""

    kind: Literal["text"] = "text"
    path: str
    """The folder; every folder below it is searched too."""
    files: str = "*"
    """Pattern of the files to take: `*.py`."""
    without: tuple[str, ...] = ()
    """Patterns (`*/tests/*`) of files to leave out, by their path in the folder."""
    test: tuple[str, ...] = ()
    """Patterns (`json/*`) of the files to test on; none: a fraction chosen by name."""
    test_fraction: float = 0.1
    """Fraction of the files to test on when `test` is empty; at least one of two."""
    validation: tuple[str, ...] = ()
    """Patterns of the files to validate on, among those that are not tested on; none: a fraction
    chosen by contents."""
    validation_fraction: Annotated[float, Field(ge=0, le=1)] = VALIDATION_FRACTION
    """About which fraction when `validation` is empty: at least one of eight; 0: none, and choices
    are made on files that are trained on."""
    vocabulary: int | None = Field(None, ge=257, le=2**16)
    """Most tokens: bytes, and pieces of two tokens or more that occur often in training files (byte
    pairs, 1508.07909); none: bytes. `encoder.vocabulary` must be as large."""


class TextFolder(Source):
    """Files found in a folder; what is no UTF-8 text is listed in `skipped`, never fatal."""

    Config = TextFolderConfig
    fps = 1.0
    size = (1, 1)

    def __init__(self, config: TextFolderConfig) -> None:
        self.config, self.root = config, Path(config.path)
        self.signals: dict[str, Signal] = {}
        self.skipped: list[Skipped] = []
        if not self.root.is_dir():
            raise AvenirError(f"there is no folder {config.path!r}; give one that holds text files")
        texts = dict(self._read())
        if not texts:
            raise AvenirError(
                f"no file {config.files!r} in {config.path!r} is text; {len(self.skipped)} were "
                "skipped: give a folder of UTF-8 files, or another data.files"
            )
        origins = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
        self._splits = Splits.chosen(origins, config)
        self.notes = self._splits.notes(origins)
        if config.vocabulary is not None:
            learnt = [text for name, text in texts.items() if self._splits.of(name) != "test"]
            self.tokenizer = learn_pieces(learnt, config.vocabulary)
        pieces = Pieces.of(self.tokenizer)
        self._tokens = {name: pieces.tokens(text) for name, text in texts.items()}
        self._recordings = {
            name: Recording(name, float(len(self._tokens[name])), origin)
            for name, origin in origins.items()
        }

    def recordings(self, split: Split) -> Sequence[Recording]:
        """List the files of a split, by name."""
        chosen = self._recordings.items()
        return [recording for name, recording in chosen if self._splits.of(name) == split]

    def clip(self, window: Window) -> Clip:
        """Read one window."""
        first = round(window.start_seconds)
        tokens = self._tokens[window.recording.name][first : first + window.num_frames]
        return _clip(tokens, window.recording.name)

    @property
    def fingerprint(self) -> str:
        """Hash of every file, of the split and of what tokens are."""
        words = [f"{r.name} {r.origin}" for r in self._recordings.values()]
        words += [] if self.tokenizer is None else [self.tokenizer]
        return hashlib.sha256("\n".join([*words, *self._splits.words]).encode()).hexdigest()

    def _read(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self.root.rglob("*")):
            name = printable(path.relative_to(self.root).as_posix())
            hidden = any(part.startswith(".") for part in Path(name).parts)
            if hidden or not fnmatch(path.name, self.config.files) or not path.is_file():
                continue
            if any(fnmatch(name, pattern) for pattern in self.config.without):
                continue
            try:
                text = path.read_bytes()
                text.decode()
            except UnicodeDecodeError as error:
                self.skipped.append(Skipped(name, f"it is no UTF-8 text: {error}"))
                continue
            except OSError as error:
                self.skipped.append(Skipped(name, f"it cannot be read ({error.strerror})"))
                continue
            if not text:
                self.skipped.append(Skipped(name, "it is empty"))
                continue
            yield name, text


class Pieces:
    """What tokens stand for: bytes, or the pieces that a `tokenizers` file names."""

    def __init__(self, tokenizer: "Tokenizer | None") -> None:
        self._tokenizer = tokenizer
        self.pieces = [bytes([byte]) for byte in range(256)]
        """The bytes of every token."""
        if tokenizer is not None:
            byte_of, named = _bytes_by_letter(), tokenizer.get_vocab()
            names = sorted(named, key=lambda name: named[name])
            self.pieces = [bytes(byte_of[letter] for letter in name) for name in names]

    @staticmethod
    @cache
    def of(tokenizer: str | None) -> "Pieces":
        """Read what a source or a card says of its tokens; none: they are bytes."""
        return Pieces(None if tokenizer is None else _library().Tokenizer.from_str(tokenizer))

    def tokens(self, text: bytes) -> np.ndarray:
        """Number a text's tokens; what is no UTF-8 is written in replacement characters."""
        if self._tokenizer is None:
            return np.frombuffer(text, np.uint8).astype(np.int64)
        return np.array(self._tokenizer.encode(text.decode(errors="replace")).ids, np.int64)

    def text(self, tokens: Iterable[int]) -> bytes:
        """Return what tokens stand for, the inverse of `tokens`; unknown ones stand for nothing."""
        return b"".join(self.pieces[token] for token in tokens if token < len(self.pieces))


def learn_pieces(texts: Sequence[bytes], vocabulary: int) -> str:
    """Learn pieces by joining the most frequent pairs of tokens; return a `tokenizers` file."""
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=sorted(_bytes_by_letter()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.decode() for text in texts), trainer)
    found = tokenizer.get_vocab_size()
    if found < vocabulary:
        raise AvenirError(
            f"data.vocabulary is {vocabulary}, and training texts hold {found} pieces that occur "
            "more than once: make it smaller, and encoder.vocabulary with it"
        )
    return tokenizer.to_str()


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise AvenirError(
            "data.vocabulary was given, and pieces of text are learnt by the package 'tokenizers': "
            'pip install "avenir[hub]"'
        ) from None
    return tokenizers


@cache
def _bytes_by_letter() -> dict[str, int]:
    """Return the byte of each letter of the byte-level alphabet: itself, or moved out of sight."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {
        chr(256 + number): byte for number, byte in enumerate(hidden)
    }


def clip_of(text: bytes, name: str = "text", tokenizer: str | None = None) -> Clip:
    """Make a clip of a text: one frame of one pixel for each token."""
    return _clip(Pieces.of(tokenizer).tokens(text), name)


def text_of(clip: Clip, tokenizer: str | None = None) -> bytes:
    """Return the text that a clip's pixels hold; the inverse of `clip_of`."""
    digits = clip.frames[:, :, 0, 0].long()
    numbers = digits[:, 0] + 256 * digits[:, 1] + 65536 * digits[:, 2]
    return Pieces.of(tokenizer).text(numbers.tolist())


def _clip(tokens: np.ndarray, name: str) -> Clip:
    digits = np.stack([tokens % 256, tokens // 256 % 256, tokens // 65536], axis=1)
    frames = torch.from_numpy(digits.astype(np.uint8))[:, :, None, None]
    return Clip(frames, TextFolder.fps, name=name)
