"""A World is what users hold: clips in, clips out, and a folder that opens anywhere.

A world is one folder: `card.json` says what it is made of, `model.safetensors` holds every weight.
An encoder on its own is a world that cannot predict yet.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from avenir.assembly import assembled, check_fits, load_weights
from avenir.card import WEIGHTS, Card, read_card
from avenir.clip import Clip, to_video
from avenir.controls import Captions, Controls, build_signals, build_signals_around
from avenir.device import best_device, generator
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.files import write_together
from avenir.finite import finite
from avenir.latent_world import LatentWorld
from avenir.renamed import FORMAT


class World(LatentWorld):
    """What users hold: `predict` continues a clip."""

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
        text: Captions | None = None,
        *,
        controls: Controls | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Clip:
        """Imagine what follows a clip.

        `controls` steer the imagined frames; `actions` and `text` are the short way to give them.
        Without any the world acts on its own. Several `samples` are several futures, on a leading
        axis of the frames.
        """
        controls = Controls.of(actions, text, controls)
        pieces = list(self.stream(clip, seconds, controls=controls, samples=samples, seed=seed))
        frames = torch.cat([piece.frames for piece in pieces], dim=-4)
        return Clip(frames, self.card.fps, name=f"{clip.name}, imagined")

    def stream(
        self,
        clip: Clip,
        seconds: float,
        actions: Tensor | None = None,
        text: Captions | None = None,
        *,
        controls: Controls | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Iterator[Clip]:
        """Yield the future piece by piece, in memory that does not grow with its length."""
        controls = Controls.of(actions, text, controls)
        clip = self.fitted(clip)
        horizon = round(seconds * self.card.fps)
        if horizon < 1:
            raise AvenirError(f"{seconds!r} seconds were asked for; that is less than one frame")
        signals = build_signals(self.takes, clip, horizon, controls)
        drawn = generator("predict", seed, device=self.device)
        past = to_video(clip.frames)
        for video in self.imagine(past, signals, horizon, samples, drawn):
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
        f_t, device = self.f_t, self.device
        length = max(1, -(-round(seconds * self.card.fps) // f_t))
        if min(before.num_frames, after.num_frames) < f_t:
            raise AvenirError(
                f"{before.num_frames} and {after.num_frames} frames are known on the sides of a "
                f"hole; this world needs at least {f_t} of both: give longer clips"
            )
        before = before[before.num_frames % f_t :]
        after = self.fitted(after[: f_t * (after.num_frames // f_t)])
        past, coming = (self.encoder.encode(clip.video.to(device)) for clip in (before, after))
        signals = build_signals_around(self.takes, before, after, length * f_t)
        condition = self._condition(signals, past.shape[1] + length + coming.shape[1], 1)
        drawn = generator("fill", seed, device=device)
        hole = predictor.infill(past, coming, condition, length, drawn)
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
        drawn = generator("views", seed, device=self.device)
        # What is discovered was read in these views as well.
        signals = {} if self.discovers else build_signals(self.takes, clip, 0)
        video = self.imagine_views(clip.video, signals, views, drawn)
        return Clip.from_video(video, self.card.fps, name=f"{clip.name}, imagined")

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
            latents = self.encoder.encode(clip.video.to(self.device))
            window = latents if earlier is None else torch.cat([earlier, latents], dim=1)
            num_old = (window.shape[1] - latents.shape[1]) * self.f_t
            video = finite(self.encoder.decode(window), self)[
                :, num_old : num_old + clip.num_frames
            ]
            video = video[..., : clip.size[0], : clip.size[1]]
            made = Clip.from_video(video, clip.fps, name=f"{clip.name}, reconstructed")
            yield replace(made, edges=clip.edges)
            earlier = self._latest(window)

    def fitted(self, clip: Clip) -> Clip:
        """Bring a clip to the world's rate and size; actions that it discovers take their place."""
        summed = [name for name, signal in self.card.signals.items() if signal.change == "delta"]
        clip = clip.resized(*self.card.size).resampled(self.card.fps, summed)
        if not self.discovers:
            return clip
        actions = self.discovered(clip.video, clip.num_frames % self.f_t)
        return replace(clip, signals={"actions": actions[0].cpu()})


load = World.load
"""Open a world."""
