"""The values that travel through the house: Clip, Batch, Condition, Context, Progress.

They validate themselves when made, print shapes instead of numbers, and know nothing of files,
models or devices other than the tensors they hold.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from avenir.errors import AvenirError
from avenir.shapes import Frames, Latents, PerFrame, Video


def to_video(frames: Frames) -> Video:
    """Map 0 … 255 to [-1, 1]; a single clip gains a batch axis."""
    video = frames.float() / 127.5 - 1
    return video if video.dim() == 5 else video[None]


def to_frames(video: Tensor) -> Tensor:
    """Map [-1, 1] to 0 … 255, rounding and clipping; the shape stays."""
    return ((video.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def cover(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 frames `… C H W` to cover `height × width`, then cut the middle out.

    The picture keeps its proportions; what does not fit is cropped, equally on both sides.
    """
    *lead, channels, old_height, old_width = frames.shape
    if (old_height, old_width) == (height, width):
        return frames
    scale = max(height / old_height, width / old_width)
    new_height = max(height, round(old_height * scale))
    new_width = max(width, round(old_width * scale))
    flat = frames.reshape(-1, channels, old_height, old_width)
    flat = interpolate(flat, (new_height, new_width), mode="bilinear", antialias=True)
    top, left = (new_height - height) // 2, (new_width - width) // 2
    return flat[..., top : top + height, left : left + width].reshape(
        *lead, channels, height, width
    )


_SLACK_SECONDS = 5.1e-4
"""Times this close are equal: some files keep whole milliseconds."""


@dataclass(frozen=True)
class Clip:
    """Frames of one video, with the signals recorded beside them.

    `frames` is uint8 `T C H W`, or `k T C H W` for k samples of one future.
    `signals` holds one row per frame each: actions, state, labels.
    """

    frames: Frames
    fps: float
    """Frames per second; their mean where `edges` say more."""
    signals: dict[str, Tensor] = field(default_factory=dict)
    name: str = "clip"
    edges: Float[Tensor, " edges"] | None = None
    """Seconds from 0 at which each frame begins, and at which the last ends, where frames come at
    no steady rate; `resampled` shows them at one."""

    def __post_init__(self) -> None:
        if self.frames.dtype != torch.uint8 or self.frames.dim() not in (4, 5):
            raise AvenirError(
                f"a clip was given frames of {self.frames.dtype} {tuple(self.frames.shape)}; "
                "it holds uint8 frames `T C H W`: use Clip.from_video for floats in [-1, 1]"
            )
        if self.fps <= 0:
            raise AvenirError(f"a clip was given {self.fps!r} fps; it needs a positive rate")
        for name, signal in self.signals.items():
            if len(signal) != self.num_frames:
                raise AvenirError(
                    f"signal {name!r} has {len(signal)} rows for {self.num_frames} frames; "
                    "a clip needs one row per frame"
                )
        if self.edges is not None and len(self.edges) != self.num_frames + 1:
            raise AvenirError(
                f"a clip was given {len(self.edges)} edges in time for {self.num_frames} frames; "
                "it needs one at which each frame begins, and one at which the last ends"
            )

    @classmethod
    def from_video(cls, video: Video, fps: float, name: str = "clip") -> "Clip":
        """Make a clip of a video in [-1, 1]; a batch of several becomes k samples."""
        frames = to_frames(video).cpu()
        return cls(frames[0] if len(frames) == 1 else frames, fps, name=name)

    @property
    def num_frames(self) -> int:
        """Frames on the time axis `T`."""
        return self.frames.shape[-4]

    @property
    def seconds(self) -> float:
        """How long the clip plays."""
        return self.num_frames / self.fps if self.edges is None else float(self.edges[-1])

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)` in pixels."""
        return self.frames.shape[-2], self.frames.shape[-1]

    @property
    def video(self) -> Video:
        """The frames as floats in [-1, 1], `b T C H W`."""
        return to_video(self.frames)

    def __getitem__(self, frames: slice) -> "Clip":
        """Cut a stretch of frames, signals included."""
        signals = {name: signal[frames] for name, signal in self.signals.items()}
        cut = replace(self, frames=self.frames[..., frames, :, :, :], signals=signals, edges=None)
        if self.edges is None or not cut.num_frames:
            return cut
        last = frames.indices(self.num_frames)[1]
        edges = torch.cat([self.edges[:-1][frames], self.edges[last : last + 1]])
        edges = edges - edges[0]
        return replace(cut, edges=edges, fps=cut.num_frames / float(edges[-1]))

    def sample(self, index: int) -> "Clip":
        """Take one of the k samples."""
        return replace(self, frames=self.frames if self.frames.dim() == 4 else self.frames[index])

    def resized(self, height: int, width: int) -> "Clip":
        """Fill `height × width`, keeping proportions and cropping what is over."""
        return replace(self, frames=cover(self.frames, height, width))

    def resampled(self, fps: float, summed: Collection[str] = ()) -> "Clip":
        """Show the clip at another rate: at every instant, the last frame that has begun.

        Signals keep the last value before the next frame; those in `summed` add up instead.
        """
        if fps == self.fps and self.edges is None:
            return self
        count = max(1, int(self.seconds * fps + 1e-6))
        if self.edges is None:
            first = (torch.arange(count + 1) * self.fps / fps + 1e-6).long()
        else:
            times = torch.arange(count + 1, dtype=torch.float64) / fps + _SLACK_SECONDS
            first = torch.searchsorted(self.edges.double(), times, right=True) - 1
        first[-1] = min(int(first[-1]), self.num_frames)
        signals = {}
        for name, signal in self.signals.items():
            known = signal.isfinite()
            total, unknown = (
                torch.cat([torch.zeros_like(each[:1]), each.cumsum(0)])[first].diff(dim=0)
                for each in (signal.where(known, 0), (~known).to(signal.dtype))
            )
            added = total.where(unknown == 0, torch.nan)
            last = signal[torch.maximum(first[1:] - 1, first[:-1])]
            signals[name] = added if name in summed else last
        frames = self.frames[..., first[:-1], :, :, :]
        return replace(self, frames=frames, fps=fps, signals=signals, edges=None)

    def __repr__(self) -> str:
        axes = "k T C H W" if self.frames.dim() == 5 else "T C H W"
        signals = "".join(f", {name} {tuple(s.shape)}" for name, s in self.signals.items())
        shape = "×".join(str(size) for size in self.frames.shape)
        uneven = "" if self.edges is None else " on average"
        return f"Clip({self.name!r}, {axes} = {shape}, {self.fps:g} fps{uneven}{signals})"


@dataclass(frozen=True)
class Batch:
    """Windows of recordings side by side, as a model meets them.

    `video` is `b T C H W` in [-1, 1]; a cache gives `latents` `b t c h w` instead, the mean, and
    their `log_variance` when the encoder doubts.
    `signals` are float tensors whose first two axes are `b T`. `names` says which recording and
    frame each row is, so that a bad one can be found again.
    """

    video: Video | None
    signals: dict[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    latents: Latents | None = None
    log_variance: Latents | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Move every tensor to `device`."""
        moved = {
            name: None if value is None else value.to(device)
            for name, value in self._tensors().items()
        }
        signals = {name: signal.to(device) for name, signal in self.signals.items()}
        return replace(self, signals=signals, **moved)

    def _tensors(self) -> dict[str, Tensor | None]:
        return {"video": self.video, "latents": self.latents, "log_variance": self.log_variance}

    def __repr__(self) -> str:
        parts = {**self._tensors(), **self.signals}
        shapes = (f"{n} {tuple(v.shape)}" for n, v in parts.items() if v is not None)
        return f"Batch({', '.join(shapes)})"


_A_BIT = 1e-3
"""Of the side of a place: less of it is not covered."""


@dataclass(frozen=True)
class Context:
    """What every latent frame can look at, by cross-attention: `tokens` `b t m d`.

    Of tokens that are not `known`, `b t m`, nothing is seen; they are finite all the same. Where
    in a frame each is seen its `reach` says, `b t m 4`: left, top, right and bottom, as shares.
    """

    tokens: Float[Tensor, "b t m d"]
    known: Bool[Tensor, "b t m"]
    reach: Float[Tensor, "b t m 4"]

    @classmethod
    def everywhere(
        cls, tokens: Float[Tensor, "b t m d"], known: Bool[Tensor, "b t m"]
    ) -> "Context":
        """Make a context that all of a frame looks at."""
        return cls(tokens, known, tokens.new_tensor([0, 0, 1, 1]).expand(*known.shape, 4))

    def seen(self, grid: tuple[int, int]) -> Bool[Tensor, "b t s m"]:
        """Say which of the `h w` places of a frame see what: where its reach covers a bit."""
        h, w = grid
        rows = torch.arange(h, device=self.known.device)[:, None, None]
        columns = torch.arange(w, device=self.known.device)[:, None]
        left, top, right, bottom = self.reach[:, :, None, None].unbind(-1)
        # An edge where two places meet is of one of them, however it was rounded.
        across = (left * w < columns + 1 - _A_BIT) & (right * w > columns + _A_BIT)
        along = (top * h < rows + 1 - _A_BIT) & (bottom * h > rows + _A_BIT)
        return (across & along & self.known[:, :, None, None]).flatten(2, 3)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Context":
        """Change batch or time of all alike."""
        return Context(change(self.tokens), change(self.known), change(self.reach))

    @staticmethod
    def joined(contexts: "Sequence[Context]", dim: int) -> "Context":
        """Join several: in time, `dim=1`, or so that all can be looked at, `dim=2`."""
        return Context(
            torch.cat([context.tokens for context in contexts], dim=dim),
            torch.cat([context.known for context in contexts], dim=dim),
            torch.cat([context.reach for context in contexts], dim=dim),
        )


@dataclass(frozen=True)
class Condition:
    """What steers the future: one vector for every latent frame, `per_frame` `b t d`.

    `null` `1 1 d` is the vector of a frame of which nothing is known: what guidance compares to.
    `per_view` `b t views d` says more of each view of those side by side in a frame; zeros say
    nothing, and so does none. `context` is what frames look at beside; none: there is nothing.
    """

    per_frame: PerFrame
    null: Float[Tensor, "1 1 d"]
    per_view: Float[Tensor, "b t views d"] | None = None
    context: Context | None = None
    parts: "Mapping[str, Condition]" = field(default_factory=dict)
    """What each of several conditioners says, of which this is the sum; none: one says it all."""

    @classmethod
    def together(cls, parts: "Mapping[str, Condition]") -> "Condition":
        """Add up what several say."""
        every = list(parts.values())
        views = [condition.per_view for condition in every if condition.per_view is not None]
        contexts = [condition.context for condition in every if condition.context is not None]
        return cls(
            torch.stack([condition.per_frame for condition in every]).sum(0),
            torch.stack([condition.null for condition in every]).sum(0),
            torch.stack(views).sum(0) if views else None,
            Context.joined(contexts, dim=2) if contexts else None,
            dict(parts),
        )

    @property
    def num_frames(self) -> int:
        """Latent frames on the time axis `t`."""
        return self.per_frame.shape[1]

    def __getitem__(self, frames: slice) -> "Condition":
        return self._each(lambda value: value[:, frames])

    def rows(self, count: int) -> "Condition":
        """Take the first rows of the batch."""
        return self._each(lambda value: value[:count])

    def repeated(self, count: int) -> "Condition":
        """Take every row so many times in a row, `(b k)`."""
        return self._each(lambda value: value.repeat_interleave(count, dim=0))

    def then(self, other: "Condition") -> "Condition":
        """Join in time: this condition, then the other, of the same views and parts."""
        views = context = None
        if self.per_view is not None and other.per_view is not None:
            views = torch.cat([self.per_view, other.per_view], dim=1)
        if self.context is not None and other.context is not None:
            context = Context.joined([self.context, other.context], dim=1)
        return Condition(
            torch.cat([self.per_frame, other.per_frame], dim=1),
            self.null,
            views,
            context,
            {name: part.then(other.parts[name]) for name, part in self.parts.items()},
        )

    def seen_from(self, before: "Condition | None") -> "Condition":
        """Let the views stay where they were at the end of another condition, if it says."""
        if before is None or before.per_view is None:
            return self
        views = before.per_view[:, -1:].expand(-1, self.num_frames, -1, -1)
        parts = {name: part.seen_from(before.parts[name]) for name, part in self.parts.items()}
        return replace(self, per_view=views, parts=parts)

    def drop(self, rows: Bool[Tensor, " b"]) -> "Condition":
        """Make some rows of the batch unconditional, in every part."""
        gone = rows[:, None, None]
        views = None if self.per_view is None else self.per_view * ~gone[..., None]
        context = self.context and replace(self.context, known=self.context.known & ~gone)
        return Condition(
            torch.where(gone, self.null, self.per_frame),
            self.null,
            views,
            context,
            {name: part.drop(rows) for name, part in self.parts.items()},
        )

    def unconditional(self, part: str | None = None) -> "Condition":
        """Take out everything, or all that one of the parts says; the frames are the same.

        Raises AvenirError when there is no such part.
        """
        if part is None:
            return Condition(self.null.expand_as(self.per_frame), self.null)
        if part not in self.parts:
            raise AvenirError(
                f"{part!r} was to be left out of a condition whose parts are {sorted(self.parts)}: "
                "name parts of a conditioner of kind 'joint', or give one number for all"
            )
        rest = dict(self.parts) | {part: self.parts[part].unconditional()}
        return Condition.together(rest)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Condition":
        views = None if self.per_view is None else change(self.per_view)
        context = self.context and self.context.each(change)
        parts = {name: part._each(change) for name, part in self.parts.items()}
        return Condition(change(self.per_frame), self.null, views, context, parts)


@dataclass(frozen=True)
class Progress:
    """Where training stands: optimiser step, steps in all, and the step's own randomness.

    The generator is seeded by (seed, step, rank), so a resumed run draws what it would have drawn.
    """

    step: int
    steps: int
    generator: torch.Generator

    @property
    def fraction(self) -> float:
        """From 0 before the first step to nearly 1 at the last."""
        return self.step / self.steps
