"""Text as a video of one pixel: every byte is a frame, a recording is a file.

A frame's one pixel holds the byte in base 256, red first, so that text goes the way of all video,
to the encoder of kind `text`. A byte lasts a second. Knows files; knows nothing of models.
"""

import hashlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from avenir.clip import Clip
from avenir.config import Config
from avenir.data import Recording, Signal, Skipped, Source, Split, Window, chosen_for_test
from avenir.errors import AvenirError


class TextConfig(Config):
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


class Text(Source):
    """Files found in a folder; what is no UTF-8 text is listed in `skipped`, never fatal."""

    Config = TextConfig
    fps = 1.0
    size = (1, 1)

    def __init__(self, config: TextConfig) -> None:
        self.config, self.root = config, Path(config.path)
        self.signals: dict[str, Signal] = {}
        self.skipped: list[Skipped] = []
        if not self.root.is_dir():
            raise AvenirError(f"there is no folder {config.path!r}; give one that holds text files")
        self._texts = dict(self._read())
        if not self._texts:
            raise AvenirError(
                f"no file {config.files!r} in {config.path!r} is text; {len(self.skipped)} were "
                "skipped: give a folder of UTF-8 files, or another data.files"
            )
        self._test = chosen_for_test(list(self._texts), config.test, config.test_fraction)
        self._recordings = {
            name: Recording(name, float(len(text)), hashlib.sha256(text.tobytes()).hexdigest())
            for name, text in self._texts.items()
        }

    def recordings(self, split: Split) -> Sequence[Recording]:
        """List the files of a split, by name."""
        chosen = self._recordings.items()
        return [r for name, r in chosen if (name in self._test) == (split == "test")]

    def clip(self, window: Window) -> Clip:
        """Read one window."""
        first = round(window.start_seconds)
        text = self._texts[window.recording.name][first : first + window.num_frames]
        return clip_of(text.tobytes(), window.recording.name)

    @property
    def fingerprint(self) -> str:
        """Hash of every file and of the split."""
        words = [f"{r.name} {r.origin}" for r in self._recordings.values()]
        return hashlib.sha256("\n".join([*words, *sorted(self._test)]).encode()).hexdigest()

    def _read(self) -> Iterator[tuple[str, np.ndarray]]:
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            hidden = any(part.startswith(".") for part in Path(name).parts)
            if hidden or not fnmatch(path.name, self.config.files) or not path.is_file():
                continue
            if any(fnmatch(name, pattern) for pattern in self.config.without):
                continue
            text = path.read_bytes()
            try:
                text.decode()
            except UnicodeDecodeError as error:
                self.skipped.append(Skipped(name, f"it is no UTF-8 text: {error}"))
                continue
            if not text:
                self.skipped.append(Skipped(name, "it is empty"))
                continue
            yield name, np.frombuffer(text, np.uint8)


def clip_of(text: bytes, name: str = "text") -> Clip:
    """Make a clip of bytes: one frame of one pixel each."""
    frames = torch.zeros(len(text), 3, 1, 1, dtype=torch.uint8)
    frames[:, 0, 0, 0] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return Clip(frames, Text.fps, name=name)


def text_of(clip: Clip) -> bytes:
    """Return the bytes that a clip's pixels hold; the inverse of `clip_of`."""
    return clip.frames[:, 0, 0, 0].numpy().tobytes()
