"""The contract of a predictor: observed latents and a condition to the latents that come next.

One file in this folder is one kind. A predictor knows shapes only: no pixels, encoders or files.
One call predicts one chunk; `rollout.py` loops.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from avenir.clip import Condition, Progress
from avenir.config import Config
from avenir.degradation import Inpainting
from avenir.errors import AvenirError
from avenir.nn.quantize import looked_up, nearest
from avenir.shapes import Latents, Tokens

MOST_FRAMES = 2**16
"""Latent frames that any predictor remembers, or makes in one call."""


class LatentShape(NamedTuple):
    """What a predictor is built for: `c h w`, and how many codes latents are, if they are codes.

    Of a world with several cameras `w` is that of all its `views` side by side. With `context` what
    steers has more to look at than a vector per frame.
    """

    channels: int
    h: int
    w: int
    vocabulary: int | None = None
    views: int = 1
    context: bool = False

    def grid(self, patch: int) -> tuple[int, int]:
        """Return rows and columns of tokens of `patch` rows and columns of latents each."""
        if self.h % patch or self.w % (patch * self.views):
            raise AvenirError(
                f"latents are {self.h}×{self.w // self.views} and the predictor's patch is "
                f"{patch}; the patch must divide both: set predictor.patch, or another data.size"
            )
        return self.h // patch, self.w // patch


@dataclass(frozen=True)
class Memory:
    """What is kept of the past: a value, owned by the caller. Keeping two of them is branching.

    `latents` `b t c h w` and the `condition` that led into each of them.
    """

    latents: Latents
    condition: Condition | None

    @property
    def num_frames(self) -> int:
        """Latent frames remembered."""
        return self.latents.shape[1]

    def led_by(self, condition: Condition | None) -> Condition | None:
        """Return what led into the frames remembered and what leads into those that come."""
        if condition is None or self.condition is None:
            return None
        return self.condition.then(condition)


def remembered(past: Latents, condition: Condition | None, most: int, sinks: int = 0) -> Memory:
    """Keep the last latent frames, `most` in all, and of them the first `sinks` that there were.

    Attention leans on what it has always seen: without the first frames it loses its footing once
    they slide away (2309.17453).
    """
    t = past.shape[1]
    if t <= most or not sinks:
        last = slice(max(0, t - most), t)
        return Memory(past[:, last], None if condition is None else condition[last])
    first, last = slice(0, sinks), slice(t - most + sinks, t)
    latents = torch.cat([past[:, first], past[:, last]], dim=1)
    return Memory(latents, None if condition is None else condition[first].then(condition[last]))


def check_sinks(sinks: int, past: int) -> None:
    """Refuse sinks that leave no room for the last frame."""
    if sinks >= past:
        raise AvenirError(
            f"predictor.sinks is {sinks} and past {past}; sinks are part of the past and leave "
            "room for the last frame: take fewer"
        )


def guided(
    before: Condition | None, after: Condition | None, guidance: float | dict[str, float]
) -> list[tuple[float, Condition | None, Condition | None]]:
    """Say what to predict under, each with its share: all that is known, and less, to be left.

    `before` and `after` lead into the past and into what is predicted. Under all + sum over guided
    parts of (guidance - 1)·(all - all but the part).
    """
    if before is None or after is None:
        return [(1.0, before, after)]
    every = guidance if isinstance(guidance, dict) else {None: guidance}
    pushes = {part: push - 1 for part, push in every.items() if push != 1}
    less = [
        (-p, before.unconditional(part), after.unconditional(part)) for part, p in pushes.items()
    ]
    return [(1.0 + sum(pushes.values()), before, after), *less]


Hidden = Float[Tensor, "b t d h w"]
"""Tokens inside a predictor, as a small video: `h w` of the latents divided by `patch`."""


@dataclass(frozen=True)
class FeatureHook:
    """Lets training look at the tokens inside a predictor, after block `layer`, counted from 1.

    `through` gets the tokens, and how much every frame counts in the loss, `b t`. What it returns
    goes on in their place.
    """

    layer: int
    through: Callable[[Hidden, Float[Tensor, "b t"]], Hidden]


def through_grid(
    hook: FeatureHook, counts: Float[Tensor, "b t"], h: int
) -> Callable[[Float[Tensor, "b t s d"]], Float[Tensor, "b t s d"]]:
    """Let a hook see tokens in rows of `s` as at a grid of `h` rows."""

    def through(tokens: Float[Tensor, "b t s d"]) -> Float[Tensor, "b t s d"]:
        grid = rearrange(tokens, "b t (h w) d -> b t d h w", h=h)
        return rearrange(hook.through(grid, counts), "b t d h w -> b t (h w) d")

    return through


class Predictor(nn.Module, ABC):
    """Continues latents `b t c h w` under a condition `b t d`."""

    Config: ClassVar[type[Config]]
    config: Any
    """Its settings, of its kind's own class."""
    width: int
    """Width of its tokens, and of the condition's vectors."""
    depth: int
    """Blocks; a `FeatureHook` may be set after each of them."""
    patch: int
    """Latent rows and columns per token."""
    num_train_frames: int
    """Latent frames of a training window."""
    tells_views_apart: bool = False
    """Whether it takes latents of several views side by side, and what is said of each."""
    looks_at_context: bool = False
    """Whether it looks at the context of a condition."""
    inpaints: bool = False
    """Whether it can be given parts of the frames it predicts."""

    @abstractmethod
    def losses(
        self,
        latents: Latents,
        condition: Condition | None,
        progress: Progress,
        hook: FeatureHook | None = None,
    ) -> dict[str, Tensor]:
        """Return every term of training by its plain name, unweighted; a `hook` is used once."""

    @abstractmethod
    def start(self, past: Latents, condition: Condition | None) -> Memory:
        """Remember what was observed, as much of it as the predictor uses."""

    def room(self, memory: Memory) -> int:
        """Say how many latent frames one call can predict after this memory: a training window."""
        return self.num_train_frames - memory.num_frames

    @abstractmethod
    def predict(
        self, memory: Memory, condition: Condition | None, length: int, generator: torch.Generator
    ) -> tuple[Latents, Memory]:
        """Predict `length` latent frames under their condition, and remember them."""

    def inpaint(
        self,
        memory: Memory,
        condition: Condition | None,
        inpainting: Inpainting,
        generator: torch.Generator,
    ) -> tuple[Latents, Memory]:
        """Predict latent frames of which some places are given, and remember them.

        There may be no past at all. Raises AvenirError for kinds that cannot, or were not taught.
        """
        raise AvenirError(
            f"a {type(self).__name__} was given parts of the frames it is to predict, and takes "
            "none: train a predictor of kind 'flow' with predictor.inpainting "
            "and predictor.unconditional_probability"
        )

    @property
    def num_steps(self) -> int | None:
        """Say in how many steps a chunk is drawn; none of a kind that has no such choice."""
        return getattr(getattr(self.config, "sampling", None), "num_steps", None)

    @contextmanager
    def in_steps(self, num_steps: int) -> Iterator[None]:
        """Draw chunks in so many steps while it lasts.

        Raises AvenirError for kinds that have no such choice.
        """
        config = self.config
        if self.num_steps is None:
            raise AvenirError(
                f"a {type(self).__name__} was asked to predict in {num_steps} steps; it has no "
                "such choice: leave the number of steps out"
            )
        sampling = config.sampling.model_copy(update={"num_steps": num_steps})
        self.config = config.model_copy(update={"sampling": sampling})
        try:
            yield
        finally:
            self.config = config

    def infill(
        self,
        before: Latents,
        after: Float[Tensor, "b s c h w"],
        condition: Condition | None,
        length: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b _n c h w"]:
        """Say what `length` latent frames lie between what came before and what comes after.

        `condition` covers all three. Raises AvenirError for kinds that see one side only.
        """
        raise AvenirError(
            f"a {type(self).__name__} was asked to fill a hole; it knows what came before and "
            "nothing of what comes after: train a predictor of kind 'masked'"
        )


class TokenPredictor(Predictor):
    """Continues codes: latents become tokens on the way in, and tokens latents on the way out.

    It keeps the table of codes, `v c`, which training takes from the encoder.
    """

    codes: Tensor
    bounds: bool = False
    """Whether `cost` is an upper bound, in the mean over draws."""

    @abstractmethod
    def cost(
        self,
        latents: Latents,
        condition: Condition | None,
        num_past: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b s"]:
        """Say what each frame after the first `num_past` costs, in nats, given those before it.

        The negative log-likelihood of all its tokens, or a bound on it.
        """

    def __init__(self, kind: str, shape: LatentShape) -> None:
        super().__init__()
        if shape.vocabulary is None:
            raise AvenirError(
                f"predictor {kind!r} predicts tokens, and the encoder's latents are numbers: give "
                "it a discrete encoder, such as kind 'fsq', or take predictor.kind='flow'"
            )
        self.register_buffer("codes", torch.zeros(shape.vocabulary, shape.channels))

    def tokens(self, latents: Latents) -> Tokens:
        """Number the nearest codes."""
        return nearest(latents, self.codes)

    def embed(self, tokens: Tokens) -> Latents:
        """Return the codes of tokens."""
        return looked_up(tokens, self.codes)
