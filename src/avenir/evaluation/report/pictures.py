"""What an evaluation shows: one mosaic video of all examples, and a contact sheet of one picture.

The video is one file, so that everything in it plays in step whatever plays it.
"""

import base64
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from avenir.clip import Clip
from avenir.shapes import Frames
from avenir.video import Writer

PANELS = ("Observed", "Imagined", "Truth")
"""Columns of the mosaic. The first is what was seen; afterwards it holds its last frame."""

_SHOWN_PIXELS = 192
_INK, _MUTED, _ACCENT = (29, 33, 41), (96, 104, 118), (178, 76, 18)


@dataclass(frozen=True)
class Example:
    """One clip to look at: frames `T C H W`."""

    name: str
    past: UInt8[Tensor, "_ C H W"]
    true: Frames
    made: dict[str, Frames]
    """By method."""


class Mosaic(NamedTuple):
    """An mp4 of `rows` examples by `PANELS`, every panel `height × width` pixels."""

    mp4: str
    """The file in base64."""
    rows: int
    height: int
    width: int


def mosaic(examples: Sequence[Example], fps: float) -> Mosaic:
    """Lay examples below each other, their panels side by side, and encode them as one video."""
    rows = [torch.cat(_panels(example), dim=-1) for example in examples]
    frames = torch.cat(rows, dim=-2)
    scale = max(1, _SHOWN_PIXELS // examples[0].true.shape[-2])
    frames = frames.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    height, width = examples[0].true.shape[-2:]
    film = embedded([frames], fps)
    return Mosaic(film, len(examples), height * scale, width * scale)


def embedded(pieces: Iterable[Frames], fps: float, quality: float = 18) -> str:
    """Encode frames, piece after piece, as one mp4 in base64, to stand in a page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        with Writer(path, fps, quality) as writer:
            for frames in pieces:
                writer.append(Clip(frames, fps))
        return base64.b64encode(path.read_bytes()).decode()


def contact_sheet(examples: Sequence[Example], fps: float, count: int = 3) -> Image.Image:
    """Lay chosen frames of a few examples in one picture, imagined above true.

    Frames are numbered from the last observed one, which is 0; a line parts observed from imagined.
    """
    examples = examples[:count]
    past, horizon = len(examples[0].past), len(examples[0].true)
    columns = _columns(past, horizon)
    num_seen = sum(column <= 0 for column in columns)
    height, width = examples[0].true.shape[-2:]
    scale = max(1, round(112 / width))
    cell, row = width * scale + 4, height * scale + 4
    left, top, gap, block = 92, 84, 18, 2 * row + 22
    sheet = Image.new(
        "RGB", (left + len(columns) * cell + gap + 16, top + len(examples) * block), "white"
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)

    def column_left(index: int) -> int:
        return left + index * cell + (gap if index >= num_seen else 0)

    for index, column in enumerate(columns):
        middle = column_left(index) + cell // 2 - 2
        label = f"+{column}" if column > 0 else str(column)
        draw.text((middle, top - 26), label, _INK, font, "ms")
        draw.text(
            (middle, top - 8), f"{column / fps:.1f} s", _MUTED, ImageFont.load_default(12), "ms"
        )
    for number, example in enumerate(examples):
        y = top + number * block
        for line, (name, future) in enumerate(
            (("imagined", example.made["world"]), ("truth", example.true))
        ):
            frames = torch.cat([example.past, future])
            draw.text((left - 10, y + line * row + row // 2), name, _INK, font, "rm")
            for index, column in enumerate(columns):
                picture = _image(frames[past - 1 + column], scale)
                sheet.paste(picture, (column_left(index), y + line * row))
    x = column_left(num_seen) - gap // 2 - 2
    draw.line((x, 16, x, sheet.height - 14), _ACCENT, 3)
    draw.text((x - 12, 24), "observed", _ACCENT, font, "rm")
    draw.text((x + 12, 24), "imagined", _ACCENT, font, "lm")
    return sheet


def _panels(example: Example) -> list[Frames]:
    held = example.past[-1:].expand_as(example.true)
    futures = (held, example.made["world"], example.true)
    return [torch.cat([example.past, future]) for future in futures]


def _columns(past: int, horizon: int) -> list[int]:
    """Choose frames: up to three observed, the last of them 0, and up to seven imagined."""
    seen = sorted({-round(i * (past - 1) / 2) for i in range(3)})
    ahead = sorted({1 + round(i * (horizon - 1) / 6) for i in range(7)})
    return seen + ahead


def _image(frame: UInt8[Tensor, "C H W"], scale: int) -> Image.Image:
    picture = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
