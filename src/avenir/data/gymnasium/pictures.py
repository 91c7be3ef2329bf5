"""What an environment shows as a picture, however it gives it: grey, with alpha, or several."""

from typing import Any

import gymnasium
import numpy as np
from jaxtyping import UInt8

from avenir.errors import Stopped

Picture = UInt8[np.ndarray, "H W 3"]


def drawn(environment: gymnasium.Env[Any, Any]) -> Picture:
    """Have an environment draw itself; Stopped, as `as_picture`, where that gives no picture."""
    try:
        shown = environment.render()
    except NotImplementedError:
        shown = None
    return as_picture(environment, shown)


def as_picture(environment: gymnasium.Env[Any, Any], shown: Any) -> Picture:
    """Return what an environment showed in colour: of several frames the last, grey as it is.

    What is transparent is shown as it is underneath. Raises Stopped, naming the environment, for
    what is no picture of whole numbers from 0 to 255: every episode would be the same.
    """
    if isinstance(shown, list | tuple) and len(shown):
        shown = shown[-1]  # frames since it was last asked: modes that end with _list
    picture = np.asarray(shown)
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3, 4):
        name = environment.spec.id if environment.spec else type(environment.unwrapped).__name__
        given = "nothing" if shown is None else f"{picture.dtype} of shape {picture.shape}"
        raise Stopped(
            f"{name!r} was asked for a picture and gave {given}; a recording needs uint8 `H W 3`, "
            '`H W 4` or `H W`: make it so under render_mode="rgb_array", or wrap the environment'
        )
    return picture.repeat(3, axis=2) if picture.shape[2] == 1 else picture[..., :3]
