"""A small procedural driving world: steered, textured, occluding, with exact labels, endless.

Everything is drawn from seeds, nothing is stored: a recording is a number. Training and test
recordings share neither seeds nor palettes nor ground textures. `simulator.py` is the world,
`rig.py` the cameras that may look at it, `environment.py` the same world under Gymnasium.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from avenir.clip import Batch, Clip, to_video
from avenir.config import Config
from avenir.data import MOST_FRAMES, Rate, Recording, Skipped, Source, Visited, Window
from avenir.data.synthetic import boxes
from avenir.data.synthetic.driver import draw_whims
from avenir.data.synthetic.ground import Bytes
from avenir.data.synthetic.layout import Array, draw_layout
from avenir.data.synthetic.motion import Ego, Traffic
from avenir.data.synthetic.picture import ScenePainter
from avenir.data.synthetic.recorded import ACTIONS, CAPTION, WEATHER, listed
from avenir.data.synthetic.rig import NUMBERS, correspondence, draw_rig, take_views
from avenir.data.synthetic.simulator import Simulator, drive_episodes, labels_of
from avenir.data.synthetic.things import NUM_SLOTS
from avenir.data.synthetic.visitors import (
    HELD_OUT,
    PAIRS,
    Visit,
    caption_at,
    draw_visits,
    fly_over,
    seen,
    visit_of,
)
from avenir.data.synthetic.weather import Change, Weather, draw_changes, lay_over, weather_signal_at
from avenir.device import seed_of
from avenir.errors import AvenirError
from avenir.signals import Signal
from avenir.splits import Split

FORMAT = 2
"""Counted up whenever the same settings give other pictures."""

READERS = {"segmentation": "synthetic_segmenter", "visitors": "visitor_reader"}
"""What reads its pictures from straight above."""

_FINER = 2
"""Pixels of the picture that cameras look at, per pixel of a view along its longer side."""


class Episodes(Sequence[Recording]):
    """The recordings of a split, each made when asked for."""

    def __init__(self, split: Split, numbers: range, seconds: float) -> None:
        self.split, self.seconds, self.numbers = split, seconds, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> list[Recording]: ...
    def __getitem__(self, index: int | slice) -> Recording | list[Recording]:
        numbers = self.numbers[index]
        if isinstance(numbers, range):
            return [self._recording(number) for number in numbers]
        return self._recording(numbers)

    def _recording(self, number: int) -> Recording:
        return Recording(f"{self.split}-{number:07d}", self.seconds)


class SyntheticConfig(Config):
    """Settings of the synthetic world."""

    kind: str = "synthetic"
    size: tuple[int, int] = (64, 64)
    """`(H, W)` of a frame in pixels, or of one view; the same stretch of world whatever W is."""
    fps: Rate = 10.0
    """Frames per second."""
    episode_frames: int = Field(default=64, ge=2, le=MOST_FRAMES)
    """Frames of one recording."""
    held_action_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of the time that the driver holds some action whatever is there, as a player might."""
    captions: Literal["some", "all"] | None = None
    """Something flies over now and then, and a caption of every frame says what. With `some`, three
    pairs of kind and colour are never seen in training."""
    weather: bool | None = None
    """Whether it is day, night, foggy or dusk, now this and now that; the signal `weather` says
    which. None: always day."""
    cameras: int | None = Field(default=None, ge=2, le=3)
    """Views of that many cameras stand side by side, of every recording in other places; the signal
    `cameras` says where they hang, as in `rig.py`. None: one view from straight above."""
    boxes: bool | None = None
    """Whether the signal `boxes` says where everything is that moves, the ego aside, as in
    `boxes.py`: in the frame, or in each view. None: there is no such signal."""
    labels: bool = False
    """Whether batches carry the labels of `simulator.py` beside the actions; with captions also
    `visitor`: how much shows of every kind that flies and of every colour, 0 … 1."""
    train_recordings: int = Field(default=1_000_000, ge=1, le=10**12)
    """How many training recordings there are."""
    first_recording: int = Field(default=0, ge=0, le=10**12)
    """Number of the first training recording: a million further on, none is shared."""
    test_recordings: int = Field(default=10_000, ge=1, le=10**12)
    """How many test recordings there are, and as many to validate on."""


class Synthetic(Source):
    """The driving world as a data set, driven by a random driver."""

    Config = SyntheticConfig
    knows_counterfactuals = True

    def __init__(self, config: SyntheticConfig) -> None:
        _check(config)
        height, width = config.size
        self.config, self.views, self.fps = config, config.cameras or 1, config.fps
        self.size = height, self.views * width
        self.signals: dict[str, Signal] = {"actions": ACTIONS}
        if config.captions:
            self.signals["caption"] = CAPTION
        if config.weather:
            self.signals["weather"] = WEATHER
        if config.cameras:
            self.signals["cameras"] = listed("camera", self.views, NUMBERS)
        if config.boxes:
            self.signals["boxes"] = listed("box", self.views * NUM_SLOTS, boxes.NUMBERS)
        self.skipped: list[Skipped] = []
        self.has_labels = config.labels
        self.takes_visitors = bool(config.captions) and self.views == 1
        self.knows_geometry = config.cameras is not None
        self.has_simulator = self.views == 1
        self.readers = READERS if self.views == 1 else {}

    def recordings(self, split: Split) -> Episodes:
        """List the recordings of a split without making any."""
        config = self.config
        numbers = range(config.test_recordings)
        if split == "train":
            numbers = range(
                config.first_recording, config.first_recording + config.train_recordings
            )
        return Episodes(split, numbers, config.episode_frames / config.fps)

    @property
    def fingerprint(self) -> str:
        """Return a hash of the format and of what changes a picture or an action."""
        # What is as it was before it could be chosen keeps data sets their name.
        later = {
            "first_recording",
            "held_action_fraction",
            "captions",
            "weather",
            "cameras",
            "boxes",
        }
        beside = {"kind", "labels"} | {name for name in later if not getattr(self.config, name)}
        settings = self.config.model_dump_json(exclude=beside)
        return hashlib.sha256(f"synthetic {FORMAT} {settings}".encode()).hexdigest()

    def draw(self, split: Split, num_frames: int, count: int, seed: int) -> list[Window]:
        """Draw recordings and, within each, a first frame at random."""
        rng = np.random.default_rng(seed)
        episodes, room = self.recordings(split), self._room(num_frames)
        chosen = rng.integers(len(episodes), size=count)
        starts = rng.integers(room + 1, size=count)
        return [
            Window(episodes[int(i)], int(start) / self.fps, num_frames)
            for i, start in zip(chosen, starts, strict=True)
        ]

    def spread(self, split: Split, num_frames: int, count: int) -> list[Window]:
        """Take the first `count` recordings, so that a larger set contains every smaller one."""
        episodes, room = self.recordings(split), self._room(num_frames)
        golden = (np.sqrt(5) - 1) / 2
        return [
            Window(episodes[i], int((room + 1) * (i * golden % 1)) / self.fps, num_frames)
            for i in range(min(count, len(episodes)))
        ]

    def clip(self, window: Window) -> Clip:
        """Simulate one window."""
        frames, signals = self._simulate([window])
        signals = {name: signal[0] for name, signal in signals.items()}
        return Clip(frames[0], self.fps, signals, window.recording.name)

    def read(self, windows: Sequence[Window]) -> Batch:
        """Simulate windows of equal length together."""
        return self._batch(windows, *self._simulate(windows))

    def counterfactual(self, windows: Sequence[Window], actions: Float[Tensor, "b F 2"]) -> Batch:
        """Simulate windows whose driver did something else before their last `F` frames.

        Row i of `actions` leads to the i-th of them. All else is as it was: traffic does not react.
        """
        return self._batch(windows, *self._simulate(windows, actions.double().numpy()))

    def visited(self, windows: Sequence[Window], visits: Sequence[Sequence[Visit]]) -> Batch:
        """Simulate windows that others visit than did; a visit's time is that in its window."""
        return self._batch(windows, *self._simulate(windows, visits=visits))

    def with_visitors(
        self, windows: Sequence[Window], begins: float, seed: int, first: int
    ) -> Visited:
        """Simulate windows that one visitor comes into, every pair of kind and colour in turn."""
        numbers = range(first, first + len(windows))
        pairs = [PAIRS[number % len(PAIRS)] for number in numbers]
        some = self.config.captions == "some"
        return Visited(
            coming=self.visited(windows, [[visit_of(seed, n, begins)] for n in numbers]),
            quiet=self.visited(windows, [[] for _ in windows]),
            pairs=torch.tensor(pairs).float(),
            is_new=torch.tensor([some and pair in HELD_OUT for pair in pairs]),
        )

    def labelled(self) -> "Synthetic":
        """Return the same world with labels, if it is seen from above."""
        if self.config.labels or self.views > 1:
            return self
        return Synthetic(self.config.model_copy(update={"labels": True}))

    def correspondence(
        self, here: Float[Tensor, "b n"], there: Float[Tensor, "b n"], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "b H W 2"], Bool[Tensor, "b H W"]]:
        """Say where camera `there` sees what camera `here` sees, as in `rig.py`."""
        return correspondence(here, there, size)

    def under(self, windows: Sequence[Window], weather: Sequence[Weather], first: int = 0) -> Batch:
        """Simulate windows whose weather becomes another at their frame `first`.

        Before it is as it was; from 0 on it is the other all along. Raises AvenirError for a world
        without weather.
        """
        if not self.config.weather:
            raise AvenirError("the synthetic world has no weather to change: set weather=true")
        changes = []
        for window, other in zip(windows, weather, strict=True):
            begins = (round(window.start_seconds * self.fps) + first - 0.5) / self.fps
            before = [change for change in self._changes(window) if change.begins < begins]
            changes.append([*before, Change(other, begins)] if first else [Change(other, -np.inf)])
        return self._batch(windows, *self._simulate(windows, changes=changes))

    def simulated(self) -> "Synthetic":
        """Return the same world by day and with nothing flying over it."""
        return Synthetic(self.config.model_copy(update={"captions": None, "weather": None}))

    def simulator_at(self, window: Window) -> Simulator:
        """Return the world as it is at the last frame of a window, to be driven on from there.

        From then on nothing flies over it, and it is day. Raises AvenirError when cameras look at
        it.
        """
        if self.config.cameras:
            raise AvenirError(
                f"the synthetic world was given cameras={self.config.cameras}; its simulator shows "
                "the picture from straight above and no views: leave out cameras to drive on in it"
            )
        split = window.recording.name.partition("-")[0]
        last = round(window.start_seconds * self.fps) + window.num_frames - 1
        driven = self.read([Window(window.recording, 0.0, last + 1)]).signals["actions"][0]
        simulator = Simulator(self.size, self.fps)
        simulator.reset([_seed(window)], split)
        for action in driven[:last].double().numpy():
            simulator.step(action[None])
        return simulator

    def _batch(
        self, windows: Sequence[Window], frames: Tensor, signals: dict[str, Tensor]
    ) -> Batch:
        names = tuple(f"{w.recording.name}@{w.start_seconds:.2f}s" for w in windows)
        return Batch(to_video(frames), signals, names)

    @property
    def _painted(self) -> tuple[int, int]:
        """Return the size of what is painted; of a view, about as fine as the view itself."""
        if not self.config.cameras:
            return self.config.size
        side = _FINER * max(self.config.size)
        return side, side

    def _room(self, num_frames: int) -> int:
        """Return the last frame a window may begin at."""
        if num_frames > self.config.episode_frames:
            raise AvenirError(
                f"a window of {num_frames} frames was asked for; synthetic episodes have "
                f"{self.config.episode_frames}: set episode_frames={num_frames} or ask for fewer"
            )
        return self.config.episode_frames - num_frames

    def _simulate(
        self,
        windows: Sequence[Window],
        instead: Array | None = None,
        visits: Sequence[Sequence[Visit]] | None = None,
        changes: Sequence[Sequence[Change]] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Drive every episode from its beginning, then paint the windows alone."""
        splits = [window.recording.name.partition("-")[0] for window in windows]
        seeds = [_seed(window) for window in windows]
        layout = draw_layout(seeds, splits)
        config = self.config
        whims = draw_whims(seeds, config.episode_frames, 1 / self.fps, config.held_action_fraction)
        first = np.array([round(window.start_seconds * self.fps) for window in windows])
        length = windows[0].num_frames
        driven = drive_episodes(layout, whims, int(first.max()) + length, self.fps)
        episode, frame = np.arange(len(windows))[:, None], first[:, None] + np.arange(length)
        if instead is not None:
            # The action at a frame leads to the next.
            driven.actions[episode, frame[:, -1 - instead.shape[1] : -1]] = instead
            driven = drive_episodes(layout, driven.actions, driven.actions.shape[1], self.fps)
        ego = Ego(*(getattr(driven.ego, f.name)[episode, frame] for f in fields(Ego)))
        traffic = Traffic(
            *(getattr(driven.traffic, f.name)[episode, frame] for f in fields(Traffic))
        )
        picture = ScenePainter(layout, self._painted).paint(ego, traffic)
        signals = {"actions": driven.actions[episode, frame]}
        if self.config.labels:
            signals |= labels_of(layout, ego, picture)
        if self.config.captions:
            # Of whole frames: times of a window are to begin where a visit in it may begin.
            since = (frame if visits is None else frame - first[:, None]) / self.fps
            if visits is None:
                seconds = config.episode_frames / self.fps
                visits = [
                    draw_visits(seed, seconds, split == "test" or config.captions == "all")
                    for seed, split in zip(seeds, splits, strict=True)
                ]
            signals |= self._visit(picture.frames, visits, since)
        frames = picture.frames
        if config.weather:
            changes = changes or [self._changes(window) for window in windows]
            lay_over(frames, changes, frame / self.fps)
            each = zip(changes, frame / self.fps, strict=True)
            signals["weather"] = np.array(
                [[weather_signal_at(c, s) for s in times] for c, times in each]
            )
        rigs = None
        if config.cameras:
            height, width = config.size
            rigs = torch.stack([draw_rig(seed, config.cameras, height / width) for seed in seeds])
            frames = take_views(frames, rigs, config.size)
            signals["cameras"] = rigs.flatten(1)[:, None].expand(-1, length, -1).numpy()
        if config.boxes:
            signals["boxes"] = boxes.boxes_of(picture, rigs).numpy()
        return torch.from_numpy(frames), {
            name: torch.from_numpy(np.ascontiguousarray(value)).to(
                torch.uint8 if name == "segmentation" else torch.float32
            )
            for name, value in signals.items()
        }

    def _changes(self, window: Window) -> tuple[Change, ...]:
        return draw_changes(_seed(window), self.config.episode_frames / self.fps)

    def _visit(
        self, frames: Bytes, visits: Sequence[Sequence[Visit]], seconds: Array
    ) -> dict[str, Array]:
        """Let visitors fly over frames of these times, `b T`, and return what is said of them."""
        fly_over(frames, visits, seconds)
        each = list(zip(visits, seconds, strict=True))
        captions = [
            [CAPTION.encode_text(caption_at(v, s)).numpy() for s in times] for v, times in each
        ]
        signals = {"caption": np.array(captions)}
        if self.config.labels:
            signals["visitor"] = np.array([[seen(v, s) for s in times] for v, times in each])
        return signals


def _seed(window: Window) -> int:
    """Return what everything about a window's recording is drawn from."""
    return seed_of("synthetic", *window.recording.name.split("-"))


def _check(config: SyntheticConfig) -> None:
    """Raise AvenirError at settings that cannot be drawn."""
    height, width = config.size
    if min(height, width) < 16 or height > 3 * width:
        raise AvenirError(
            f"the synthetic world was given size {config.size!r}; it draws pictures from "
            "16 pixels a side, at most three times as high as wide: use (64, 64)"
        )
    if config.cameras and width > 3 * height:
        raise AvenirError(
            f"the synthetic world was given size {config.size!r} and cameras={config.cameras}; "
            "size is that of one view, here at most three times as wide as high: use (64, 64)"
        )
    if config.cameras and config.labels:
        raise AvenirError(
            f"the synthetic world was given cameras={config.cameras} and labels=true; labels "
            "are of the picture from straight above and not of views: leave out one of them"
        )
