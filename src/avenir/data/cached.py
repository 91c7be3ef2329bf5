"""Latents encoded once: every recording at several temporal phases, in safetensors shards.

A shard holds one recording and a checksum. Writing can be stopped and goes on where it stopped; a
changed encoder or data set changes the cache's key, and an old cache is refused. Knows no encoder:
a function that encodes is given.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from avenir.clip import Batch, Clip
from avenir.config import Config, read_json
from avenir.data import Rate, Recording, Source, Window
from avenir.errors import AvenirError, DamagedError
from avenir.files import alone_in, sweep, write_whole
from avenir.shapes import Compression, Video
from avenir.signals import Signals
from avenir.splits import Split
from avenir.tensors import load_tensors, save_tensors

Encode = Callable[[Video], tuple[Tensor, Tensor | None]]
"""Video `b T C H W` to mean and log-variance, `b t c h w` each."""


class CachedConfig(Config):
    """Latents on disk, written by `avenir encode`."""

    kind: str = "cached"
    path: str = Field(min_length=1)
    """The folder that `avenir encode` wrote."""


class CacheIndex(Config):
    """What a cache says of itself, in `index.json`."""

    encoder: str
    """Hash of the weights of the encoder whose latents these are."""
    data: str
    """Fingerprint of the data set that was encoded."""
    fps: Rate
    size: tuple[PositiveInt, PositiveInt]
    views: PositiveInt = 1
    compression: tuple[PositiveInt, PositiveInt, PositiveInt]
    signals: Signals
    shards: dict[Split, list[tuple[Annotated[str, Field(pattern=r"^[\w-]{1,100}$")], PositiveInt]]]
    """Shard files of each split, with their number of latent frames."""


class Cached(Source):
    """Windows of latents; starts fall on the latent grid of the phase they come from."""

    Config = CachedConfig

    def __init__(self, config: CachedConfig) -> None:
        self.folder = Path(config.path)
        try:
            self.index = CacheIndex.parse(read_json(self.folder / "index.json"), "index.json")
        except FileNotFoundError:
            raise AvenirError(
                f"{config.path!r} is no finished cache of latents: run `avenir encode` on it again"
            ) from None
        self.fps, self.size, self.signals = self.index.fps, self.index.size, self.index.signals
        self.compression, self.views = Compression(*self.index.compression), self.index.views
        self.skipped = []
        self._shards: dict[str, dict[str, Tensor]] = {}
        self._lengths = dict(s for shards in self.index.shards.values() for s in shards)

    @property
    def fingerprint(self) -> str:
        """Join what was encoded with what encoded it."""
        return f"{self.index.data}-{self.index.encoder}"

    def check(self, encoder: str) -> None:
        """Refuse latents of another encoder than the one with this hash."""
        if self.index.encoder != encoder:
            raise AvenirError(
                f"{str(self.folder)!r} holds latents of another encoder, or of the same trained "
                "anew: run `avenir encode` with the encoder that the recipe names"
            )

    def recordings(self, split: Split) -> Sequence[Recording]:
        """List every phase of every recording as one."""
        group_seconds = self.compression.t / self.fps
        return [Recording(name, t * group_seconds) for name, t in self.index.shards.get(split, [])]

    def clip(self, window: Window) -> Clip:
        """Refuse: a cache holds no frames."""
        raise AvenirError(f"{str(self.folder)!r} holds latents, not frames: use the data it is of")

    def read(self, windows: Sequence[Window]) -> Batch:
        """Read latents and signals side by side."""
        rows = [self._row(window) for window in windows]
        doubt = [row["log_variance"] for row in rows if "log_variance" in row]
        return Batch(
            video=None,
            latents=torch.stack([row["mean"] for row in rows]),
            log_variance=torch.stack(doubt) if doubt else None,
            signals={n: torch.stack([row[f"signal.{n}"] for row in rows]) for n in self.signals},
            names=tuple(f"{w.recording.name}@{w.start_seconds:.2f}s" for w in windows),
        )

    def _row(self, window: Window) -> dict[str, Tensor]:
        f_t = self.compression.t
        first = int(window.start_seconds * self.fps / f_t + 1e-6)
        length = window.num_frames // f_t
        shard = self._shard(window.recording.name)
        return {
            name: value[first * f_t : (first + length) * f_t]
            if name.startswith("signal.")
            else value[first : first + length]
            for name, value in shard.items()
        }

    def _shard(self, name: str) -> dict[str, Tensor]:
        """Map a shard, and look once whether it is what was written."""
        if name not in self._shards:
            path = self.folder / f"{name}.safetensors"
            try:
                tensors, about = load_tensors(path)
                if about.get("key") != self.fingerprint:
                    raise DamagedError(f"{str(path)!r} is of another encoder or data set")
                if not self._holds(tensors, name):
                    raise DamagedError(f"{str(path)!r} holds other tensors than its index says")
            except DamagedError as error:
                raise DamagedError(
                    f"{error}; run the command that wrote these latents again, `avenir encode` or "
                    "`avenir train`: it makes anew what is not whole"
                ) from None
            self._shards[name] = tensors
        return self._shards[name]

    def _holds(self, tensors: dict[str, Tensor], name: str) -> bool:
        """Say whether a shard has what is read of it: `t c h w`, and signals of every frame."""
        num_frames = self._lengths[name] * self.compression.t
        t, h, w = self.compression.latent_shape(num_frames, *self.size)
        there = {key: tuple(value.shape) for key, value in tensors.items()}
        mean = there.get("mean", ())
        expected = {f"signal.{n}": (num_frames, s.size) for n, s in self.signals.items()}
        expected |= {key: mean for key in ("mean", "log_variance") if key in there}
        fits = len(mean) == 4 and (mean[0], *mean[2:]) == (t, h, w) and there == expected
        return fits and all(value.is_floating_point() for value in tensors.values())


def write_cache(
    source: Source,
    recordings: Mapping[Split, Sequence[Recording]],
    folder: Path,
    encode: Encode,
    compression: Compression,
    encoder: str,
    phases: int,
) -> Iterator[int]:
    """Encode every recording at `phases` temporal phases; yield the frames done after each one.

    `encoder` is the hash of what encodes. Shards of the same encoder and data are kept.
    """
    key = f"{source.fingerprint}-{encoder}"
    shards: dict[Split, list[tuple[str, int]]] = {split: [] for split in recordings}
    with alone_in(folder, "encoding", wait=True):
        sweep(folder)
        for split, name, window in _windows(source, recordings, compression.t, phases):
            path = folder / f"{name}.safetensors"
            if not _is_of(path, key):
                _write_shard(source.read([window]), path, encode, compression.t, key)
            shards[split].append((name, window.num_frames // compression.t))
            yield window.num_frames
        index = CacheIndex(
            encoder=encoder,
            data=source.fingerprint,
            fps=source.fps,
            size=source.size,
            views=source.views,
            compression=compression,
            signals=source.signals,
            shards=shards,
        )
        write_whole(folder / "index.json", index.model_dump_json(indent=1))


def _windows(
    source: Source, recordings: Mapping[Split, Sequence[Recording]], f_t: int, phases: int
) -> Iterator[tuple[Split, str, Window]]:
    """Yield what each shard holds: its split, its name, and whole groups of frames."""
    for split, members in recordings.items():
        for number, recording in enumerate(members):
            for phase in range(phases):
                start = phase * f_t / phases / source.fps
                t = int((recording.seconds - start) * source.fps / f_t + 1e-6)
                if t >= 1:
                    yield split, f"{split}-{number:06d}-{phase}", Window(recording, start, t * f_t)


def _write_shard(batch: Batch, path: Path, encode: Encode, f_t: int, key: str) -> None:
    assert batch.video is not None
    pieces = [encode(piece) for piece in batch.video.split(16 * f_t, dim=1)]
    tensors = {"mean": torch.cat([mean for mean, _ in pieces], dim=1)[0].cpu()}
    doubt = [log_variance for _, log_variance in pieces if log_variance is not None]
    if doubt:
        tensors["log_variance"] = torch.cat(doubt, dim=1)[0].cpu()
    tensors |= {f"signal.{n}": s[0].float().contiguous() for n, s in batch.signals.items()}
    save_tensors(path, tensors, {"key": key})


def _is_of(path: Path, key: str) -> bool:
    """Say whether a shard is there, whole, and of these latents."""
    try:
        return load_tensors(path)[1].get("key") == key
    except DamagedError:
        return False
