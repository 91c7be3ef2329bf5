"""A World holds an encoder, a conditioner and a predictor: the only place where the roles meet.

A world is one folder: `card.json` says what it is made of, `model.safetensors` holds every weight.
An encoder on its own is a world that cannot predict yet.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from einops import repeat
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn

from avenir.assembly import assembled, check_fits, load_weights
from avenir.card import FORMAT, WEIGHTS, Card, read_card
from avenir.clip import Clip, Condition, to_video
from avenir.conditioners import Conditioner, DiscoveringConditioner
from avenir.degradation import Inpainting
from avenir.device import best_device, generator
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.files import write_together
from avenir.finite import finite
from avenir.predictors import Predictor
from avenir.rollout import RolloutState, continue_rollout, inpainted, rollout
from avenir.shapes import Actions, Latents, Video
from avenir.signals import Signal
from avenir.steering import Told, Words, check_views, laid, laid_ahead, laid_around


class World(nn.Module):
    """What users hold: `predict` continues a clip."""

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

    # Making, saving, loading ------------------------------------------------------------------

    @classmethod
    def build(cls, card: Card, teacher: Encoder | None = None) -> "World":
        """Make the roles that a card describes, weights drawn at random.

        An encoder that has a teacher gets the one given, or else one that is made as well.
        """
        return cls(card, *assembled(card, teacher))

    def save(self, folder: str | Path) -> None:
        """Write `card.json` and `model.safetensors`; nothing else is needed to load it again."""
        weights = {n: value.detach().cpu().contiguous() for n, value in self.state_dict().items()}
        card = self.card.model_dump_json(indent=2)
        model, about = (Path(folder) / name for name in (WEIGHTS, "card.json"))
        write_together({model: save(weights), about: card})

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: torch.device | str | None = None,
        trust: Iterable[str] = (),
    ) -> "World":
        """Open a folder that `save` or `avenir train` wrote.

        Of code that is not avenir's, kinds with a dotted name, only what `trust` names is run. Any
        other is an AvenirError, as is a folder that is damaged or does not fit together.
        """
        card = read_card(folder, trust)
        check_fits(card, Path(folder))
        world = cls.build(card.model_copy(update={"format": FORMAT}))
        load_weights(world, card, Path(folder))
        return world.eval().to(device or best_device())

    # Using ------------------------------------------------------------------------------------

    def predict(
        self,
        clip: Clip,
        seconds: float,
        actions: Tensor | None = None,
        samples: int = 1,
        seed: int = 0,
        text: Words | None = None,
        told: Told | None = None,
    ) -> Clip:
        """Imagine what follows a clip.

        `actions` `F a`: row i leads to imagined frame i; without them the world acts on its own.
        `text` says what is seen in all imagined frames, or in each, and `told` any other signals
        that it takes, by name, `s` or `F s`. Several `samples` are several futures, on a leading
        axis of the frames.
        """
        pieces = list(self.stream(clip, seconds, actions, samples, seed, text, told))
        frames = torch.cat([piece.frames for piece in pieces], dim=-4)
        return Clip(frames, self.card.fps, name=f"{clip.name}, imagined")

    def stream(
        self,
        clip: Clip,
        seconds: float,
        actions: Tensor | None = None,
        samples: int = 1,
        seed: int = 0,
        text: Words | None = None,
        told: Told | None = None,
    ) -> Iterator[Clip]:
        """Yield the future piece by piece, in memory that does not grow with its length."""
        clip = self.fitted(clip)
        horizon = round(seconds * self.card.fps)
        if horizon < 1:
            raise AvenirError(f"{seconds!r} seconds were asked for; that is less than one frame")
        signals = laid(self.takes, clip, horizon, actions, text, told)
        chance = generator("predict", seed, device=self._device)
        past = to_video(clip.frames)
        for video in self.imagine(past, signals, horizon, samples, chance):
            yield Clip.from_video(video, self.card.fps, name=f"{clip.name}, imagined")

    @torch.no_grad()
    def infill(self, before: Clip, after: Clip, seconds: float, seed: int = 0) -> Clip:
        """Imagine what lies between two clips, seeing both.

        It is whole groups of frames long, and `after` begins with one. Actions that the clips hold
        steer them; those of the hole are unknown. Raises AvenirError when the predictor sees one
        side only, or the hole is longer than it can fill.
        """
        predictor = self._forecaster
        before, after = self.fitted(before), self.fitted(after)
        f_t, device = self.encoder.compression.t, self._device
        length = max(1, -(-round(seconds * self.card.fps) // f_t))
        if min(before.num_frames, after.num_frames) < f_t:
            raise AvenirError(
                f"{before.num_frames} and {after.num_frames} frames are known on the sides of a "
                f"hole; this world needs at least {f_t} of both: give longer clips"
            )
        before = before[before.num_frames % f_t :]
        after = self.fitted(after[: f_t * (after.num_frames // f_t)])
        past, coming = (self.encoder.encode(clip.video.to(device)) for clip in (before, after))
        signals = laid_around(self.takes, before, after, length * f_t)
        condition = self._condition(signals, past.shape[1] + length + coming.shape[1], 1)
        chance = generator("fill", seed, device=device)
        hole = predictor.infill(past, coming, condition, length, chance)
        seen = self._latest(past)
        video = finite(self.encoder.decode(torch.cat([seen, hole], dim=1)), self)
        video = video[:, seen.shape[1] * f_t :][..., : before.size[0], : before.size[1]]
        return Clip.from_video(video, self.card.fps, name=f"{before.name}, filled")

    def predict_views(self, clip: Clip, views: Collection[int], seed: int = 0) -> Clip:
        """Imagine what some of its cameras saw, counted from 0, from what the others did.

        The clip's own pictures of these `views` are not looked at. What it holds of signals steers.
        Raises AvenirError when there are no such views, no others, or the predictor takes no parts.
        """
        clip = self.fitted(clip)
        chance = generator("views", seed, device=self._device)
        # What is discovered was read in these views as well.
        signals = {} if self.discovers else laid(self.takes, clip, 0)
        video = self.imagine_views(clip.video, signals, views, chance)
        return Clip.from_video(video, self.card.fps, name=f"{clip.name}, imagined")

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
        where = check_views(views, self.card.views)
        first = video.shape[1] % self.encoder.compression.t
        latents = self._observed(video)
        cut = {name: signal[:, first:] for name, signal in signals.items()}
        condition = self._condition(cut, latents.shape[1], len(latents))
        given = (~where).repeat_interleave(latents.shape[-1] // self.card.views)
        inpainting = Inpainting(latents, given.to(self._device).expand(latents[:, :, 0].shape))
        chunks = inpainted(self._forecaster, inpainting, condition, generator)
        made = finite(self.encoder.decode(torch.cat(list(chunks), dim=1)), self)
        return made[..., : video.shape[-2], : video.shape[-1]]

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
        f_t, predictor = self.encoder.compression.t, self._forecaster
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

        `signals` cover the `P` frames; what leads out of the last of them is said by `step`.
        """
        f_t, predictor = self.encoder.compression.t, self._forecaster
        latents = self._observed(past)
        cut = {name: signal[:, past.shape[1] % f_t :] for name, signal in signals.items()}
        condition = self._condition(cut, latents.shape[1], len(latents))
        seen = self._latest(latents)
        return RolloutState(predictor.start(latents, condition), seen, past[:, -f_t:].cpu())

    @torch.no_grad()
    def step(
        self,
        state: RolloutState,
        actions: Actions | None,
        generator: torch.Generator,
        text: str | None = None,
        told: Told | None = None,
    ) -> RolloutState:
        """Imagine one latent frame more, `f_t` frames of video, that show what is said and told.

        `actions` `b f_t a`: row i leads to frame i of it; without them the world acts on its own.
        """
        f_t, size = self.encoder.compression.t, state.video.shape[-2:]
        ahead = self._led(state, actions, 1, text, told)
        latents, memory = self._forecaster.predict(state.memory, ahead, 1, generator)
        window = torch.cat([state.seen, finite(latents, self)], dim=1)
        video = finite(self.encoder.decode(window), self)[:, -f_t:, :, : size[0], : size[1]]
        return RolloutState(memory, self._latest(window), video.cpu(), state.num_imagined + 1)

    def imagine_step(
        self,
        state: RolloutState,
        action: Float[Tensor, "b a"] | None,
        seed: int,
        text: str | None = None,
        told: Told | None = None,
    ) -> RolloutState:
        """Step with one action for all frames; chance follows from the seed and the step."""
        chance = generator("dream", seed, state.num_imagined, device=self._device)
        f_t = self.encoder.compression.t
        held = None if action is None else repeat(action, "b a -> b f a", f=f_t)
        return self.step(state, held, chance, text, told)

    @torch.no_grad()
    def foresee(
        self, state: RolloutState, actions: Actions, generator: torch.Generator
    ) -> Float[Tensor, "b n c h w"]:
        """Say which latents `actions` `b F a` lead to, `n = F / f_t` of them, and decode none."""
        num_ahead, rest = divmod(actions.shape[1], self.encoder.compression.t)
        if rest or not num_ahead:
            raise AvenirError(
                f"actions for {actions.shape[1]} frames were given; a latent stands for "
                f"{self.encoder.compression.t}: give as many as whole latents have"
            )
        ahead = self._led(state, actions, num_ahead)
        chunks = continue_rollout(self._forecaster, state.memory, ahead, num_ahead, generator)
        return finite(torch.cat(list(chunks), dim=1), self)

    def _led(
        self,
        state: RolloutState,
        actions: Actions | None,
        num_ahead: int,
        text: str | None = None,
        told: Told | None = None,
    ) -> Condition | None:
        """Condition the latent frames after a moment on what leads into them."""
        f_t, count = self.encoder.compression.t, len(state.video)
        signals = laid_ahead(self.takes, count, f_t, num_ahead, actions, text, told)
        ahead = self._condition(signals, 1 + num_ahead, count)
        if ahead is None or "cameras" in signals:
            return None if ahead is None else ahead[1:]
        return ahead[1:].seen_from(state.memory.condition)

    def _observed(self, past: Video) -> Latents:
        """Encode what was observed; groups end at its last frame, so the oldest frames go."""
        f_t = self.encoder.compression.t
        if past.shape[1] < f_t:
            raise AvenirError(
                f"{past.shape[1]} observed frames; this world needs at least {f_t} "
                f"({f_t / self.card.fps:.2f} s at {self.card.fps:g} fps): give a longer clip"
            )
        return self.encoder.encode(past[:, past.shape[1] % f_t :].to(self._device))

    def _latest(self, latents: Latents) -> Float[Tensor, "b _s c h w"]:
        """Keep the last latent frames, as many as decoding the next one looks back to."""
        return latents[:, max(0, latents.shape[1] - self.encoder.look_back) :]

    def _condition(
        self, signals: dict[str, Tensor], num_frames: int, batch_size: int
    ) -> Condition | None:
        if self.conditioner is None:
            return None
        here = {name: signal.to(self._device) for name, signal in signals.items()}
        return self.conditioner(here, num_frames, batch_size)

    @property
    def _device(self) -> torch.device:
        return self.encoder.latent_mean.device

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

    @torch.no_grad()
    def reconstruct(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        """Encode and decode pieces of one video, each of whole groups but the last."""
        earlier: Tensor | None = None
        for clip in clips:
            if self.card.views > 1 and clip.size != self.card.size:
                raise AvenirError(
                    f"{clip.name!r} has frames of {clip.size}; {self.card.name!r} sees "
                    f"{self.card.views} views side by side in frames of {self.card.size}: give such"
                )
            latents = self.encoder.encode(clip.video.to(self._device))
            window = latents if earlier is None else torch.cat([earlier, latents], dim=1)
            num_old = (window.shape[1] - latents.shape[1]) * self.encoder.compression.t
            video = finite(self.encoder.decode(window), self)[
                :, num_old : num_old + clip.num_frames
            ]
            video = video[..., : clip.size[0], : clip.size[1]]
            made = Clip.from_video(video, clip.fps, name=f"{clip.name}, reconstructed")
            yield replace(made, edges=clip.edges)
            earlier = self._latest(window)

    @property
    def _forecaster(self) -> Predictor:
        """Return the predictor; an encoder on its own has none."""
        if self.predictor is None:
            raise AvenirError(
                f"{self.card.name!r} holds an encoder and no predictor: it can only encode; train "
                "a world on it with `encoder=` in a predictor's recipe"
            )
        return self.predictor

    def fitted(self, clip: Clip) -> Clip:
        """Bring a clip to the world's rate and size; actions that it discovers take their place."""
        summed = [name for name, signal in self.card.signals.items() if signal.change == "delta"]
        clip = clip.resized(*self.card.size).resampled(self.card.fps, summed)
        if not self.discovers:
            return clip
        actions = self.discovered(clip.video, clip.num_frames % self.encoder.compression.t)
        return replace(clip, signals={"actions": actions[0].cpu()})

    @property
    def discovers(self) -> bool:
        """Whether its actions are what it found in video, and not what was recorded beside it."""
        return isinstance(self.conditioner, DiscoveringConditioner)

    @torch.no_grad()
    def discovered(self, video: Video, first: int = 0) -> Actions:
        """Read which of its actions led from frame to frame, `b T a`, in groups from `first` on."""
        assert isinstance(self.conditioner, DiscoveringConditioner)
        f_t = self.encoder.compression.t
        end = first + (video.shape[1] - first) // f_t * f_t
        actions = video.new_full((*video.shape[:2], self.card.signals["actions"].size), torch.nan)
        if end > first:
            latents = self.encoder.encode(video[:, first:end].to(self._device))
            actions[:, first:end] = self.conditioner.discover(latents).to(video.device)
        return actions

    @property
    def takes(self) -> dict[str, Signal]:
        """What steers it, of the signals of its data: `actions`, `caption`, any that are told."""
        if self.conditioner is None:
            return {}
        names = ("actions",) if self.discovers else self.conditioner.needs(self.conditioner.config)
        return {name: self.card.signals[name] for name in names}


load = World.load
"""Open a world."""
