"""A World holds an encoder, a conditioner and a predictor: the only place where the roles meet.

A world is one folder: `card.json` says what it is made of, `model.safetensors` holds every weight.
An encoder on its own is a world that cannot predict yet.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from einops import repeat
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avenir.clip import Clip, to_video
from avenir.conditioners import Conditioner
from avenir.config import Config
from avenir.data import Signal
from avenir.device import best_device, generator
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.predictors import LatentShape, Predictor
from avenir.registry import find, parse
from avenir.rollout import rollout
from avenir.shapes import Video

FORMAT = 1
"""Version of the folder: a reader that finds a higher one says so instead of guessing."""


class Card(Config):
    """What a world is made of and where it comes from."""

    format: int = FORMAT
    """Version of the folder."""
    name: str = "world"
    """The recipe's name."""
    fps: float
    """Frames per second it lives at."""
    size: tuple[int, int]
    """Height and width of its frames."""
    signals: dict[str, Signal] = {}
    """What may steer it: names, bounds and keys."""
    tokenizer: str | None = None
    """Of a world of text in pieces, what its tokens stand for; none: bytes, or no text."""
    encoder: dict[str, Any]
    """Settings of the encoder, with its kind; in them those of its `teacher`, if it has one."""
    conditioner: dict[str, Any] | None = None
    """Settings of the conditioner."""
    predictor: dict[str, Any] | None = None
    """Settings of the predictor."""
    provenance: dict[str, Any] = {}
    """Key, data, seeds, steps and cost of the run that made it."""


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
        encoder = _make_encoder(card.encoder, teacher)
        if card.predictor is None:
            return cls(card, encoder)
        _, h, w = encoder.compression.latent_shape(1, *card.size)
        shape = LatentShape(encoder.channels, h, w, encoder.vocabulary)
        predictor = _make("predictors", card.predictor, shape)
        if card.conditioner is None:
            return cls(card, encoder, None, predictor)
        sizes = {name: signal.size for name, signal in card.signals.items()}
        missing = set(find("conditioners", card.conditioner["kind"]).needs) - set(sizes)
        if missing:
            raise AvenirError(
                f"conditioner {card.conditioner['kind']!r} needs {sorted(missing)}; the data has "
                f"{sorted(sizes) or 'no signals'}: use data with them, or drop the conditioner"
            )
        conditioner = _make(
            "conditioners", card.conditioner, sizes, encoder.compression.t, predictor.width
        )
        return cls(card, encoder, conditioner, predictor)

    def save(self, folder: str | Path) -> None:
        """Write `card.json` and `model.safetensors`; nothing else is needed to load it again."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {n: value.detach().cpu().contiguous() for n, value in self.state_dict().items()}
        partial = folder / "model.safetensors.partial"
        save_file(weights, partial)
        partial.replace(folder / "model.safetensors")
        (folder / "card.json").write_text(self.card.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str | None = None) -> "World":
        """Open a folder that `save` or `avenir train` wrote."""
        folder = Path(folder)
        try:
            card = Card.parse(json.loads((folder / "card.json").read_text()), "card")
            weights = load_file(folder / "model.safetensors")
        except FileNotFoundError as error:
            raise AvenirError(
                f"{str(folder)!r} holds no world: {Path(error.filename).name} is missing; "
                "give a run folder that `avenir train` wrote"
            ) from None
        except (json.JSONDecodeError, SafetensorError) as error:
            raise AvenirError(f"{str(folder)!r} holds a damaged world: {error}") from None
        if card.format > FORMAT:
            raise AvenirError(
                f"{str(folder)!r} is of format {card.format}; this version reads up to {FORMAT}: "
                "upgrade avenir"
            )
        world = cls.build(card)
        try:
            world.load_state_dict(weights)
        except RuntimeError:
            raise AvenirError(
                f"the weights in {str(folder)!r} do not fit what its card describes: it was "
                "written by another version of avenir; use that one, or train again elsewhere"
            ) from None
        return world.eval().to(device or best_device())

    # Using ------------------------------------------------------------------------------------

    def predict(
        self,
        clip: Clip,
        seconds: float,
        actions: Tensor | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Clip:
        """Imagine what follows a clip.

        `actions` `F a`: row i leads to imagined frame i; without them the world acts on its own.
        Several `samples` are several futures, on a leading axis of the frames.
        """
        pieces = list(self.stream(clip, seconds, actions, samples, seed))
        frames = torch.cat([piece.frames for piece in pieces], dim=-4)
        return Clip(frames, self.card.fps, name=f"{clip.name}, imagined")

    def stream(
        self,
        clip: Clip,
        seconds: float,
        actions: Tensor | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Iterator[Clip]:
        """Yield the future piece by piece, in memory that does not grow with its length."""
        clip = self.fitted(clip)
        horizon = round(seconds * self.card.fps)
        if horizon < 1:
            raise AvenirError(f"{seconds!r} seconds were asked for; that is less than one frame")
        signals = self._signals(clip, actions, horizon)
        device = self.encoder.latent_mean.device
        chance = generator("predict", seed, device=device)
        past = to_video(clip.frames)
        for video in self.imagine(past, signals, horizon, samples, chance):
            yield Clip.from_video(video, self.card.fps, name=f"{clip.name}, imagined")

    @torch.no_grad()
    def fill(self, before: Clip, after: Clip, seconds: float, seed: int = 0) -> Clip:
        """Imagine what lies between two clips, seeing both.

        It is whole groups of frames long, and `after` begins with one. Actions that the clips hold
        steer them; those of the hole are unknown. Raises AvenirError when the predictor sees one
        side only, or the hole is longer than it can fill.
        """
        if self.predictor is None:
            raise self._predicts_nothing()
        before, after = self.fitted(before), self.fitted(after)
        f_t, device = self.encoder.compression.t, self.encoder.latent_mean.device
        length = max(1, -(-round(seconds * self.card.fps) // f_t))
        if min(before.num_frames, after.num_frames) < f_t:
            raise AvenirError(
                f"{before.num_frames} and {after.num_frames} frames are known on the sides of a "
                f"hole; this world needs at least {f_t} of both: give longer clips"
            )
        before = before[before.num_frames % f_t :]
        after = after[: f_t * (after.num_frames // f_t)]
        past, coming = (self.encoder.encode(clip.video.to(device)) for clip in (before, after))
        condition = None
        if self.conditioner is not None:
            signals = self._signals_around(before, after, length * f_t)
            on_device = {name: signal.to(device) for name, signal in signals.items()}
            num_frames = past.shape[1] + length + coming.shape[1]
            condition = self.conditioner(on_device, num_frames, 1)
        chance = generator("fill", seed, device=device)
        hole = self.predictor.fill(past, coming, condition, length, chance)
        seen = past[:, max(0, past.shape[1] - self.encoder.look_back) :]
        video = self.encoder.decode(torch.cat([seen, hole], dim=1))[:, seen.shape[1] * f_t :]
        video = video[..., : before.size[0], : before.size[1]]
        return Clip.from_video(video, self.card.fps, name=f"{before.name}, filled")

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
        if self.predictor is None:
            raise self._predicts_nothing()
        f_t, device = self.encoder.compression.t, self.encoder.latent_mean.device
        extra = past.shape[1] % f_t
        if past.shape[1] < f_t:
            raise AvenirError(
                f"{past.shape[1]} observed frames; this world needs at least {f_t} "
                f"({f_t / self.card.fps:.2f} s at {self.card.fps:g} fps): give a longer clip"
            )
        # Groups end at the last observed frame: the oldest frames are the ones to lose.
        latents = self.encoder.encode(past[:, extra:].to(device))
        latents = repeat(latents, "b ... -> (b k) ...", k=samples)
        num_ahead = -(-horizon // f_t)
        condition = None
        if self.conditioner is not None:
            cut = {
                name: repeat(signal[:, extra:].to(device), "b ... -> (b k) ...", k=samples)
                for name, signal in signals.items()
            }
            condition = self.conditioner(cut, latents.shape[1] + num_ahead, len(latents))
        chunks = rollout(self.predictor, latents, condition, num_ahead, generator)
        seen = latents[:, max(0, latents.shape[1] - self.encoder.look_back) :]
        yield from self._frames(chunks, seen, horizon, past.shape[-2:])

    def _frames(
        self, chunks: Iterable[Tensor], seen: Tensor, horizon: int, size: torch.Size
    ) -> Iterator[Video]:
        def with_past() -> Iterator[Tensor]:
            yield seen
            yield from chunks

        videos = (
            self.encoder.decode_stream(with_past())
            if seen.shape[1]
            else (self.encoder.decode_stream(iter(chunks)))
        )
        if seen.shape[1]:
            next(videos)
        for video in videos:
            yield video[:, :horizon, :, : size[0], : size[1]]
            horizon -= video.shape[1]

    @torch.no_grad()
    def reconstruct(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        """Encode and decode pieces of one video, each of whole groups but the last."""
        device, look_back = self.encoder.latent_mean.device, self.encoder.look_back
        earlier: Tensor | None = None
        for clip in clips:
            latents = self.encoder.encode(clip.video.to(device))
            window = latents if earlier is None else torch.cat([earlier, latents], dim=1)
            num_old = (window.shape[1] - latents.shape[1]) * self.encoder.compression.t
            video = self.encoder.decode(window)[:, num_old : num_old + clip.num_frames]
            video = video[..., : clip.size[0], : clip.size[1]]
            yield Clip.from_video(video, clip.fps, name=f"{clip.name}, reconstructed")
            earlier = window[:, max(0, window.shape[1] - look_back) :]

    def _predicts_nothing(self) -> AvenirError:
        return AvenirError(
            f"{self.card.name!r} holds an encoder and no predictor: it can only encode; train "
            "a world on it with `encoder=` in a predictor's recipe"
        )

    def fitted(self, clip: Clip) -> Clip:
        """Bring a clip to the world's rate and size."""
        summed = [name for name, signal in self.card.signals.items() if signal.change == "delta"]
        return clip.resized(*self.card.size).resampled(self.card.fps, summed)

    def _signals_around(self, before: Clip, after: Clip, hole: int) -> dict[str, Tensor]:
        """Lay the actions on both sides of a hole on one axis; those inside are unknown."""
        signals = self._signals(before, None, hole + after.num_frames)
        for name, laid in signals.items():
            if name in after.signals:
                laid[0, -after.num_frames :] = after.signals[name]
        return signals

    def _signals(self, clip: Clip, actions: Tensor | None, horizon: int) -> dict[str, Tensor]:
        """Lay the actions of past and future on one axis; what nobody said is NaN."""
        if self.conditioner is None or "actions" not in self.card.signals:
            if actions is not None:
                raise AvenirError("actions were given to a world that was trained without any")
            return {}
        size = self.card.signals["actions"].size
        laid = torch.full((clip.num_frames + horizon, size), float("nan"))
        seen = clip.signals.get("actions")
        if seen is not None:
            laid[: clip.num_frames] = seen
        if actions is not None:
            if actions.dim() != 2 or actions.shape[1] != size:
                raise AvenirError(
                    f"actions of shape {tuple(actions.shape)} were given; this world takes "
                    f"`F {size}`: one row for each imagined frame"
                )
            start = clip.num_frames - 1
            given = actions[:horizon]
            laid[start : start + len(given)] = given
        return {"actions": laid[None]}


def load(folder: str | Path, device: torch.device | str | None = None) -> World:
    """Open a world; the same as `World.load`."""
    return World.load(folder, device)


def _make_encoder(table: dict[str, Any], teacher: Encoder | None = None) -> Encoder:
    if "teacher" not in table:
        return _make("encoders", table)
    return _make("encoders", table, teacher or _make_encoder(table["teacher"]))


def _make(role: str, table: dict[str, Any], *parts: Any) -> Any:
    return find(role, table["kind"])(parse(role, table), *parts)
