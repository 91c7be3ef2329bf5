"""The only long-video loop: chunk after chunk in latents, with a sliding past.

It never decodes: decoding and encoding again is what makes long videos drift. It knows the
predictor's contract and nothing of its kind.
"""

from collections.abc import Iterator

import torch

from avenir.clip import Condition
from avenir.predictors import Memory, Predictor
from avenir.shapes import Latents


def rollout(
    predictor: Predictor,
    past: Latents,
    condition: Condition | None,
    horizon: int,
    generator: torch.Generator,
) -> Iterator[Latents]:
    """Yield chunks that together are `horizon` latent frames after `past`.

    `condition` covers past and horizon. Memory does not grow with the horizon.
    """
    done = past.shape[1]
    memory = predictor.start(past, None if condition is None else condition[:done])
    ahead = None if condition is None else condition[done:]
    yield from onward(predictor, memory, ahead, horizon, generator)


def onward(
    predictor: Predictor,
    memory: Memory,
    condition: Condition | None,
    horizon: int,
    generator: torch.Generator,
) -> Iterator[Latents]:
    """Yield chunks that together are the `horizon` latent frames that `condition` leads to."""
    done = 0
    while done < horizon:
        length = min(predictor.room(memory), horizon - done)
        ahead = None if condition is None else condition[done : done + length]
        chunk, memory = predictor.predict(memory, ahead, length, generator)
        done += length
        yield chunk
