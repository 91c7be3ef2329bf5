"""Does what is said come? Words in the middle of a future, and what a frozen reader then sees.

Nothing flies in the past, nor at first in what is imagined; then a caption says that something
does. Pairs of kind and colour that the world never saw in training tell words that were understood
from pictures that were learnt by heart. The reader ships beside this file; it was trained by
`recipes/visitor_reader.toml` on training recordings of all pairs, for one that misses some reads
others in their place. It says how it does on the simulator's own frames of the same visits.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.data.synthetic import Synthetic
from avenir.data.synthetic.visitors import HELD_OUT, PAIRS, Visit, Visitor, visit_of
from avenir.device import seed_of
from avenir.encoders.regressor import Regressor
from avenir.evaluation.baselines import ceiling
from avenir.evaluation.held_out import Imagines, Task, imagined
from avenir.evaluation.metrics.bootstrap import Interval
from avenir.evaluation.settings import Report
from avenir.shapes import Video
from avenir.world import World

FOLDER = Path(__file__).parents[1] / "readers" / "visitor_reader"

_SECONDS, _BEFORE = 2.8, 0.8
"""Imagined, and of these before the words."""

_SHOWS = 0.5
"""Share of a visitor that is read in some frame when it is there."""


class Obeyed(Config):
    """What is read after words that asked for something."""

    num_clips: int
    """Windows."""
    appears: Interval
    """Share in which something shows."""
    kind: Interval
    """Share in which it is of the kind that was said; nothing is of no kind."""
    colour: Interval
    """Share in which it has the colour that was said."""
    both: Interval
    """Share in which both are right."""


class Obedience(Config):
    """What comes of words, and what without."""

    seconds: float
    """Imagined after the words."""
    known: Obeyed
    """Of pairs of kind and colour that training shows."""
    held_out: Obeyed
    """Of pairs that it does not."""
    read: Obeyed
    """The simulator's own frames of all these visits: what reading alone gets wrong."""
    kept: Obeyed | None = None
    """These frames encoded and decoded: what the tokenizer leaves to be read. No world is read
    better; none where the encoder cannot decode."""
    too_soon: Interval
    """Share in which something shows before it is asked for."""
    refused: Interval
    """Share in which something shows although the words say that nothing does."""
    unsaid: Interval
    """Share in which something shows when nothing is said at all."""
    more_than_refused: Interval
    """How much more often something shows when it is asked for than when it is refused."""
    more_than_unsaid: Interval
    """How much more often something shows when it is asked for than when nothing is said."""


class Seen(NamedTuple):
    """What is read in a stretch of frames of every clip."""

    shows: Bool[Tensor, " b"]
    """Whether anything does."""
    pair: Float[Tensor, "b 2"]
    """Kind and colour, of what shows most."""


class Reader:
    """Says what flies over synthetic frames."""

    def __init__(self, network: Regressor, size: tuple[int, int]) -> None:
        self.network, self.size = network.eval(), size

    @classmethod
    def shipped(cls, device: torch.device | str) -> "Reader":
        """Open the one that comes with the package."""
        world = World.load(FOLDER, device)
        assert isinstance(world.encoder, Regressor)
        return cls(world.encoder, world.card.size)

    @torch.no_grad()
    def read(self, video: Video) -> Seen:
        """Look at frames `b T C H W` together."""
        parts = video.split(8, dim=1)
        device = self.network.latent_mean.device
        shown = torch.cat([self.network.measured(part.to(device)) for part in parts], dim=1).cpu()
        kinds, colours = shown.split((len(Visitor), shown.shape[-1] - len(Visitor)), dim=-1)
        pair = [each.clamp(min=0).sum(1).argmax(-1) for each in (kinds, colours)]
        return Seen(kinds.amax((1, 2)) > _SHOWS, torch.stack(pair, dim=1).float())


class _Outcome(NamedTuple):
    """What is read of windows, in the order of the task."""

    asked: Seen
    before: Seen
    refused: Seen
    unsaid: Seen
    truth: Seen
    kept: Seen | None
    pair: Float[Tensor, "b 2"]
    """Asked for."""


def measure_obedience(
    world: Imagines, task: Task, reader: Reader, report: Report
) -> Obedience | None:
    """Ask for visitors, refuse them, and say nothing, after the same pasts and from the same noise.

    None where captions tell of no visitors, where recordings are too short to see one, and for
    views and sizes that the reader was not trained on.
    """
    source, fps = task.source, task.source.fps
    if not isinstance(source, Synthetic) or not source.config.captions or source.views > 1:
        return None
    f_t = world.encoder.compression.t
    # A latent frame is told the words of its last frame: they change with the first of one.
    horizon, before = round(_SECONDS * fps), f_t * max(1, round(_BEFORE * fps / f_t))
    if task.past + horizon > source.config.episode_frames or source.size != reader.size:
        return None
    windows = source.spread("test", task.past + horizon, len(task.windows))
    task = task._replace(windows=windows, horizon=horizon)
    outcomes: list[_Outcome] = []
    for start in range(0, len(task.windows), task.batch_size):
        report("asked for visitors", start, len(task.windows))
        outcomes.append(_outcome(world, task, source, reader, before, start))
    report("asked for visitors", len(task.windows), len(task.windows))
    asked, soon, refused, unsaid, truth, kept = (
        None if None in seen else Seen(*map(torch.cat, zip(*seen, strict=True)))
        for seen in list(zip(*outcomes, strict=True))[:-1]
    )
    assert asked and soon and refused and unsaid and truth
    pair = torch.cat([outcome.pair for outcome in outcomes])
    some = source.config.captions == "some"
    new = torch.tensor([some and tuple(row) in HELD_OUT for row in pair.int().tolist()])

    def mean(values: Tensor, counts: Tensor | None = None) -> Interval:
        return task.mean(values, torch.ones_like(new) if counts is None else counts)

    def obeyed(seen: Seen, counts: Tensor) -> Obeyed:
        right = (seen.pair == pair) & seen.shows[:, None]
        return Obeyed(
            num_clips=int(counts.sum()),
            appears=mean(seen.shows.float(), counts),
            kind=mean(right[:, 0].float(), counts),
            colour=mean(right[:, 1].float(), counts),
            both=mean(right.all(1).float(), counts),
        )

    came = asked.shows.float()
    return Obedience(
        seconds=(task.horizon - before) / fps,
        known=obeyed(asked, ~new),
        held_out=obeyed(asked, new),
        read=obeyed(truth, torch.ones_like(new)),
        kept=kept and obeyed(kept, torch.ones_like(new)),
        too_soon=mean(soon.shows.float()),
        refused=mean(refused.shows.float()),
        unsaid=mean(unsaid.shows.float()),
        more_than_refused=mean(came - refused.shows.float()),
        more_than_unsaid=mean(came - unsaid.shows.float()),
    )


def _outcome(
    world: Imagines, task: Task, source: Synthetic, reader: Reader, before: int, start: int
) -> _Outcome:
    """Imagine a batch of windows in every way."""
    windows = task.windows[start : start + task.batch_size]
    begins = (task.past + before) / source.fps
    numbers = range(start, start + len(windows))
    seed = seed_of("visit", task.seed, start)
    visits: list[list[Visit]] = [[visit_of(seed, number, begins)] for number in numbers]
    with_visit = source.visited(windows, visits)
    without = source.visited(windows, [[] for _ in windows])

    def future(steering: dict[str, Tensor]) -> Video:
        past, _ = task.split(without)
        return imagined(world, past, steering, task.horizon, "obedience", task.seed, start)

    said, refused = (_held(task, batch, before) for batch in (with_visit, without))
    unsaid = dict(refused)
    unsaid["caption"] = refused["caption"].clone()
    unsaid["caption"][:, task.past :] = torch.nan
    asked, (past, true) = future(said), task.split(with_visit)
    kept = ceiling(world.encoder, past, true) if world.encoder.can_decode else None
    return _Outcome(
        asked=reader.read(asked[:, before:]),
        before=reader.read(asked[:, :before]),
        refused=reader.read(future(refused)[:, before:]),
        unsaid=reader.read(future(unsaid)[:, before:]),
        truth=reader.read(true[:, before:]),
        kept=None if kept is None else reader.read(kept[:, before:]),
        pair=torch.tensor([PAIRS[number % len(PAIRS)] for number in numbers]).float(),
    )


def _held(task: Task, batch: Batch, before: int) -> dict[str, Tensor]:
    """Go on saying what is said first after the quiet, as somebody does who cannot see the end."""
    steering = dict(task.steering(batch))
    caption = steering["caption"].clone()
    first = task.past + before
    caption[:, first:] = caption[:, first : first + 1]
    return steering | {"caption": caption}
