"""The three roles at work on batches: what was observed to latents, and latents to futures.

Knows pixels, latents, signals and generators; no folders and no clips, which `world.py` adds.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Literal

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avenir.card import Card
from avenir.clip import Condition
from avenir.conditioners import Conditioner, DiscoveringConditioner
from avenir.controls import Controls, build_step_signals
from avenir.degradation import Inpainting
from avenir.device import generator
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.finite import finite
from avenir.predictors import Predictor
from avenir.rollout import RolloutState, continue_rollout, inpainted, rollout
from avenir.shapes import Actions, Latents, Video
from avenir.signals import Signal, with_role


class LatentWorld(nn.Module):
    """An encoder, a conditioner and a predictor that fit each other."""

    def __init__(
        self,
        card: Card,
        encoder: Encoder,
        conditioner: Conditioner | None = None,
        predictor: Predictor | None = None,
    ) -> None:
        super().__init__()
        self.card, self.encoder = card, encoder
        self.conditioner, self.predictor = conditioner, predictor

    # What it is -------------------------------------------------------------------------------

    @property
    def modality(self) -> Literal["video", "text"]:
        """What its frames are: pictures, or the tokens of a text."""
        return self.encoder.modality

    @property
    def f_t(self) -> int:
        """Frames of one latent: as many as a step imagines."""
        return self.encoder.compression.t

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.encoder.latent_mean.device

    @property
    def takes(self) -> dict[str, Signal]:
        """What steers it, of the signals of its data, by name."""
        if self.conditioner is None:
            return {}
        names = ("actions",) if self.discovers else self.conditioner.needs(self.conditioner.config)
        return {name: self.card.signals[name] for name in names}

    @property
    def action_signal(self) -> Signal | None:
        """The actions that it takes; none: it takes none."""
        return next(iter(with_role(self.takes, "action").values()), None)

    @property
    def discovers(self) -> bool:
        """Whether its actions are what it found in video, and not what was recorded beside it."""
        return isinstance(self.conditioner, DiscoveringConditioner)

    @torch.no_grad()
    def discovered(self, video: Video, first: int = 0) -> Actions:
        """Read which of its actions led from frame to frame, `b T a`, in groups from `first` on."""
        assert isinstance(self.conditioner, DiscoveringConditioner)
        f_t = self.f_t
        end = first + (video.shape[1] - first) // f_t * f_t
        actions = video.new_full((*video.shape[:2], self.card.signals["actions"].size), torch.nan)
        if end > first:
            latents = self.encoder.encode(video[:, first:end].to(self.device))
            actions[:, first:end] = self.conditioner.discover(latents).to(video.device)
        return actions

    # Futures ----------------------------------------------------------------------------------

    @torch.no_grad()
    def imagine(
        self,
        past: Video,
        signals: dict[str, Tensor],
        horizon: int,
        samples: int,
        generator: torch.Generator,
    ) -> Iterator[Video]:
        """Yield the `horizon` frames after a batch of pasts, piece by piece.

        `past` `b P C H W`; `signals` cover `P + horizon` frames. A row's samples follow each other:
        the pieces are `(b k) T C H W`.
        """
        f_t, predictor = self.f_t, self._forecaster
        latents = repeat(self._observed(past), "b ... -> (b k) ...", k=samples)
        num_ahead = -(-horizon // f_t)
        repeated = {
            name: repeat(signal[:, past.shape[1] % f_t :], "b ... -> (b k) ...", k=samples)
            for name, signal in signals.items()
        }
        condition = self._condition(repeated, latents.shape[1] + num_ahead, len(latents))
        chunks = rollout(predictor, latents, condition, num_ahead, generator)
        yield from self._frames(chunks, self._latest(latents), horizon, past.shape[-2:])

    @torch.no_grad()
    def start(self, past: Video, signals: dict[str, Tensor]) -> RolloutState:
        """Stand at the end of a batch of pasts `b P C H W`, to go on from there step by step.

        `signals` cover the `P` frames; what leads out of the last of them comes with `step`.
        """
        f_t, predictor = self.f_t, self._forecaster
        latents = self._observed(past)
        cut = {name: signal[:, past.shape[1] % f_t :] for name, signal in signals.items()}
        condition = self._condition(cut, latents.shape[1], len(latents))
        seen = self._latest(latents)
        return RolloutState(predictor.start(latents, condition), seen, past[:, -f_t:].cpu())

    @torch.no_grad()
    def step(
        self, state: RolloutState, controls: Controls | None, generator: torch.Generator
    ) -> RolloutState:
        """Imagine one latent frame more, `f_t` frames of video, under controls of these frames.

        Actions are `b f_t a`, or one row that is held; without any the world acts on its own.
        """
        size = state.video.shape[-2:]
        ahead = self._step_condition(state, controls, 1)
        latents, memory = self._forecaster.predict(state.memory, ahead, 1, generator)
        window = torch.cat([state.seen, finite(latents, self)], dim=1)
        video = finite(self.encoder.decode(window), self)[:, -self.f_t :]
        video = video[..., : size[0], : size[1]].cpu()
        return RolloutState(memory, self._latest(window), video, state.num_imagined + 1)

    def imagine_step(
        self, state: RolloutState, controls: Controls | None, seed: int
    ) -> RolloutState:
        """Step with randomness that follows from the seed and the number of the step."""
        # The label is part of the seed: playthroughs of earlier versions open to the same frames.
        drawn = generator("dream", seed, state.num_imagined, device=self.device)
        return self.step(state, controls, drawn)

    @torch.no_grad()
    def foresee(
        self, state: RolloutState, controls: Controls, generator: torch.Generator
    ) -> Float[Tensor, "b n c h w"]:
        """Return the `n = F / f_t` latents that actions `b F a` lead to; none is decoded."""
        if controls.actions is None or controls.actions.dim() < 2:
            raise AvenirError("no actions were given to look ahead with; give actions `b F a`")
        num_frames = controls.actions.shape[-2]
        num_ahead, rest = divmod(num_frames, self.f_t)
        if rest or not num_ahead:
            raise AvenirError(
                f"actions for {num_frames} frames were given; a latent stands for {self.f_t}: "
                "give as many as whole latents have"
            )
        ahead = self._step_condition(state, controls, num_ahead)
        chunks = continue_rollout(self._forecaster, state.memory, ahead, num_ahead, generator)
        return finite(torch.cat(list(chunks), dim=1), self)

    @torch.no_grad()
    def imagine_views(
        self,
        video: Video,
        signals: dict[str, Tensor],
        views: Collection[int],
        generator: torch.Generator,
    ) -> Video:
        """Imagine `views` of a batch of clips `b T C H W` from all others, in whole groups.

        Groups end at the last frame: of frames that are over the oldest are left out.
        """
        where = mark_views(views, self.card.views)
        first = video.shape[1] % self.encoder.compression.t
        latents = self._observed(video)
        cut = {name: signal[:, first:] for name, signal in signals.items()}
        condition = self._condition(cut, latents.shape[1], len(latents))
        given = (~where).repeat_interleave(latents.shape[-1] // self.card.views)
        inpainting = Inpainting(latents, given.to(self.device).expand(latents[:, :, 0].shape))
        chunks = inpainted(self._forecaster, inpainting, condition, generator)
        made = finite(self.encoder.decode(torch.cat(list(chunks), dim=1)), self)
        return made[..., : video.shape[-2], : video.shape[-1]]

    # Within -----------------------------------------------------------------------------------

    def _step_condition(
        self, state: RolloutState, controls: Controls | None, num_ahead: int
    ) -> Condition | None:
        """Condition the latent frames after a state on the controls that lead into them."""
        count = len(state.video)
        controls = controls or Controls()
        signals = build_step_signals(self.takes, count, self.f_t, num_ahead, controls)
        condition = self._condition(signals, 1 + num_ahead, count)
        if condition is None:
            return None
        if signals.keys() & with_role(self.takes, "camera").keys():
            return condition[1:]
        return condition[1:].seen_from(state.memory.condition)

    def _observed(self, past: Video) -> Latents:
        """Encode what was observed; groups end at its last frame, so the oldest frames go."""
        f_t = self.f_t
        if past.shape[1] < f_t:
            raise AvenirError(
                f"{past.shape[1]} observed frames; this world needs at least {f_t} "
                f"({f_t / self.card.fps:.2f} s at {self.card.fps:g} fps): give a longer clip"
            )
        return self.encoder.encode(past[:, past.shape[1] % f_t :].to(self.device))

    def _latest(self, latents: Latents) -> Float[Tensor, "b _s c h w"]:
        """Keep the last latent frames, as many as decoding the next one looks back to."""
        return latents[:, max(0, latents.shape[1] - self.encoder.look_back) :]

    def _condition(
        self, signals: dict[str, Tensor], num_frames: int, batch_size: int
    ) -> Condition | None:
        if self.conditioner is None:
            return None
        here = {name: signal.to(self.device) for name, signal in signals.items()}
        return self.conditioner(here, num_frames, batch_size)

    def _frames(
        self, chunks: Iterable[Tensor], seen: Tensor, horizon: int, size: torch.Size
    ) -> Iterator[Video]:
        known = [seen] if seen.shape[1] else []
        videos = self.encoder.decode_stream(chain(known, chunks))
        for _ in known:
            next(videos)
        for video in videos:
            yield finite(video, self)[:, :horizon, :, : size[0], : size[1]]
            horizon -= video.shape[1]

    @property
    def _forecaster(self) -> Predictor:
        """Return the predictor; an encoder on its own has none."""
        if self.predictor is None:
            raise AvenirError(
                f"{self.card.name!r} holds an encoder and no predictor: it can only encode; train "
                "a world on it with `tokenizer=` in a predictor's recipe"
            )
        return self.predictor


def mark_views(views: Collection[int], count: int) -> Bool[Tensor, " views"]:
    """Mark some of `count` views, counted from 0; AvenirError for none, all, or one more."""
    if not 0 < len(set(views)) < count or not set(views) <= set(range(count)):
        raise AvenirError(
            f"views {sorted(views)} were asked for of {count}, counted from 0: name some of them, "
            "and leave one at least to imagine them from"
        )
    return torch.tensor([view in views for view in range(count)])
