"""The only long-video loop: chunk after chunk in latents, with a sliding past.

It never decodes: decoding and encoding again is what makes long videos drift. It knows the
predictor's contract and nothing of its kind.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from avenir.clip import Condition
from avenir.degradation import Inpainting
from avenir.predictors import Memory, Predictor
from avenir.shapes import Latents


@dataclass(frozen=True)
class RolloutState:
    """Where a future stands: a value. Keeping one is rewinding, keeping two is branching."""

    memory: Memory
    """What the predictor keeps of the past."""
    seen: Float[Tensor, "b s c h w"]
    """The latest latent frames, as many as decoding the next one looks back to."""
    video: Float[Tensor, "b f_t C H W"]
    """Frames of the latest latent frame: the last that were observed, or those imagined last."""
    num_imagined: int = 0
    """Latent frames since what was observed."""

    def repeated(self, count: int) -> "RolloutState":
        """Return as many of it as futures are to be compared, `(b k)`."""

        def rows(value: Tensor) -> Tensor:
            return repeat(value, "b ... -> (b k) ...", k=count)

        condition = self.memory.condition
        steered = None if condition is None else condition.repeated(count)
        memory = Memory(rows(self.memory.latents), steered)
        return replace(self, memory=memory, seen=rows(self.seen), video=rows(self.video))


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
    yield from continue_rollout(predictor, memory, ahead, horizon, generator)


def inpainted(
    predictor: Predictor,
    inpainting: Inpainting,
    condition: Condition | None,
    generator: torch.Generator,
) -> Iterator[Latents]:
    """Yield chunks that together are the latent frames of which parts are given.

    Nothing is known before the first of them.
    """
    nothing = None if condition is None else condition[:0]
    memory, done = predictor.start(inpainting.latents[:, :0], nothing), 0
    while done < inpainting.latents.shape[1]:
        part = inpainting[done : done + predictor.room(memory)]
        done_now = part.latents.shape[1]
        ahead = None if condition is None else condition[done : done + done_now]
        chunk, memory = predictor.inpaint(memory, ahead, part, generator)
        done += done_now
        yield chunk


def continue_rollout(
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
