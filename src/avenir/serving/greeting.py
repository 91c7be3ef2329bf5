"""The first message to a page: the world, its keys, and pictures of the clips to start from."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from avenir.clip import Clip
from avenir.serving.backends import InitialState
from avenir.signals import name_of
from avenir.world import World

_MOST_CAPTIONS = 40


def greeting(world: World, initial_states: Sequence[InitialState]) -> dict[str, Any]:
    """Gather what a page is sent first: what it needs to know of a world."""
    signal = world.action_signal
    caption = name_of(world.takes, "caption")
    return {
        "name": world.card.name,
        "fps": world.card.fps,
        "steps_per_second": world.card.fps / world.f_t,
        "keys": {} if signal is None else signal.keys,
        "names": [] if signal is None else list(signal.names),
        "captions": None if caption is None else _captions(caption, initial_states),
        "clips": [_picture(initial.past) for initial in initial_states],
    }


def _captions(name: str, initial_states: Sequence[InitialState]) -> list[str]:
    """List captions of the recordings: what the world may know words for."""
    clips = [clip for each in initial_states for clip in (each.past, each.future) if clip]
    rows = [row for clip in clips if name in clip.signals for row in clip.signals[name]]
    known = [bytes(row.byte().tolist()).rstrip(b"\0") for row in rows if row.isfinite().all()]
    return sorted({caption.decode(errors="ignore") for caption in known} - {""})[:_MOST_CAPTIONS]


def _picture(past: Clip) -> str:
    """Return the last frame that was observed as an address of the kind data:."""
    file = io.BytesIO()
    Image.fromarray(past.frames[-1].permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
