"""A declared experiment: arms × seeds become runs, runs become rows, rows a verdict.

The only place that trains *and* evaluates. What is declared is hashed before anything runs, and
every row carries the hash, so rows gathered at different times can be told from rows of another
experiment. running.py makes rows of cells.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from avenir import renamed
from avenir.card import Card
from avenir.config import Config, read_json, read_toml
from avenir.device import best_device
from avenir.errors import AvenirError, DamagedError
from avenir.evaluation.independence import check_independent
from avenir.evaluation.questions.generation import SET_METRICS
from avenir.evaluation.readers.readout import evaluator_for
from avenir.registry import code_in
from avenir.splits import Split
from avenir.study.comparison import ArmRun, Arms, Conclusion, Gate, compare_arms
from avenir.study.predictiveness import correlate_passports
from avenir.training.objectives import make_card, make_source, trained_on
from avenir.training.recipe import Recipe, load_recipe
from avenir.world import World


class Protocol(Config):
    """What is declared before anything runs."""

    recipe: str
    """A predictor's recipe, beside the protocol."""
    arms: dict[str, tuple[str, ...]]
    """Changes to the recipe that make each arm, as on the command line."""
    comparisons: dict[str, Arms]
    """Which arms are compared."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """One pair each: tokenizer and generator both start from it."""
    development_seed: int = 0
    """The seed that settings are chosen on; no pair uses it."""
    grid: tuple[tuple[str, ...], ...] = ()
    """Settings tried by every arm on the development seed for the budget; the best by the first
    metric is kept."""
    snapshots: tuple[int, ...] = Field(min_length=2)
    """Generator steps at which worlds are measured, log-spaced; the last ends training."""
    budget: int | None = None
    """Steps whose shares are the thresholds; none: the last snapshot. Snapshots beyond it measure
    arms that are somewhat slower, instead of only bounding them."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """What is measured; the first decides."""
    evaluator: str | None = None
    """The independent evaluator: a recipe beside the protocol, trained first, or a run folder;
    none: the one that ships for the data."""
    num_clips: int = Field(256, ge=8)
    """Held-out clips."""
    past: int = Field(8, ge=1)
    """Frames observed."""
    horizon: int = Field(8, ge=1)
    """Frames imagined."""
    gate: Gate = Gate.model_validate({})
    """How equal codecs must be."""
    passport: bool = False
    """Whether every latent gets a passport, and its numbers are held against how fast it is
    learnt."""


class Cell(NamedTuple):
    """One arm on one seed with one choice of settings."""

    arm: str
    seed: int
    choice: int

    @property
    def name(self) -> str:
        """Name its row."""
        return f"{self.arm}-{self.seed}" + (f"-{self.choice}" if self.choice else "")


class Study:
    """A protocol on data, its folder of runs and rows."""

    def __init__(
        self, path: Path, overrides: Iterable[str], folder: Path, trust: Iterable[str] = ()
    ) -> None:
        """Open a protocol; of code that is not ours, run what `trust` and its recipes name."""
        self.protocol = Protocol.parse(read_toml(path), path.stem)
        self.path, self.overrides, self.folder = path, tuple(overrides), folder
        self.trust = frozenset(trust)
        self._check()
        for arm in self.protocol.arms:
            self.trust |= set(code_in(self._recipe(arm, 0).model_dump()))
        self.source = make_source(self._recipe(next(iter(self.protocol.arms)), 0).data)
        self.judge = self._judge()
        if isinstance(self.judge, Recipe):
            self.trust |= set(code_in(self.judge.model_dump()))
        self._check_judge()
        self.hash = self._hash()

    @cached_property
    def evaluator(self) -> World:
        """Open the evaluator; one with a recipe has been trained by then."""
        if isinstance(self.judge, Recipe):
            return World.load(run_folder(self.judge, self.folder / "runs"), trust=self.trust)
        return self.judge

    def recipe(self, cell: Cell) -> Recipe:
        """Return what a cell trains: one seed for all it stands on but the teacher."""
        recipe = reseeded(self._recipe(cell.arm, cell.choice), cell.seed)
        snapshots = self.snapshots(cell)
        settings = {"snapshots": snapshots, "steps": snapshots[-1], "num_samples": 0}
        return recipe.model_copy(update={"train": recipe.train.model_copy(update=settings)})

    def snapshots(self, cell: Cell) -> tuple[int, ...]:
        """Return when a cell's worlds are measured; while settings are chosen, at the budget."""
        protocol = self.protocol
        if cell.seed == protocol.development_seed:
            return (protocol.budget or protocol.snapshots[-1],)
        return protocol.snapshots

    def split(self, cell: Cell) -> Split:
        """Return whose recordings measure a cell: settings are never chosen on the test."""
        if cell.seed != self.protocol.development_seed:
            return "test"
        return self.source.selection_split(self.protocol.past + self.protocol.horizon)

    def row(self, cell: Cell) -> ArmRun | None:
        """Read a finished cell's row; one of another protocol is an error."""
        path = self.folder / "rows" / f"{cell.name}.json"
        return read_row(path, self.hash) if path.exists() else None

    def chosen(self, arm: str) -> int:
        """Return the choice that was best for an arm at the budget, by metric one."""
        protocol = self.protocol
        if not protocol.grid:
            return 0
        metric = protocol.metrics[0]
        marks = []
        for choice in range(len(protocol.grid)):
            row = self.row(Cell(arm, protocol.development_seed, choice))
            if row is None:
                raise AvenirError(f"settings of arm {arm!r} have not been chosen: run the study")
            marks.append(row.marks[metric][-1])
        best = max if SET_METRICS[metric].higher_is_better else min
        return marks.index(best(marks))

    def _recipe(self, arm: str, choice: int) -> Recipe:
        words = [*self.protocol.arms[arm], *self.overrides]
        if self.protocol.grid:
            words += self.protocol.grid[choice]
        return load_recipe(self.path.parent / self.protocol.recipe, words, self.trust)

    def _check(self) -> None:
        protocol = self.protocol
        for name, arms in protocol.comparisons.items():
            unknown = {arms.baseline, arms.treatment, arms.placebo or arms.baseline} - set(
                protocol.arms
            )
            if unknown:
                raise AvenirError(
                    f"comparison {name!r} names {sorted(unknown)}; the arms are "
                    f"{', '.join(protocol.arms)}"
                )
        for metric in protocol.metrics:
            if metric not in SET_METRICS:
                raise AvenirError(f"{metric!r} is no metric that a study measures")
        if protocol.development_seed in protocol.seeds:
            raise AvenirError(
                f"seed {protocol.development_seed} is the one settings are chosen on; a pair "
                "on it would have been chosen, not tested: take another"
            )
        budget, (first, *_, last) = protocol.budget or protocol.snapshots[-1], protocol.snapshots
        if not 4 * first <= budget <= last:
            raise AvenirError(
                f"the budget is {budget} steps and the snapshots reach from {first} to {last}; the "
                "first must be at a quarter of the budget or earlier, the last no earlier than it"
            )

    def _judge(self) -> World | Recipe:
        """Find the evaluator, or the recipe that it is trained by."""
        named = self.protocol.evaluator
        if named is not None:
            path = self.path.parent / named
            if (path / "card.json").exists():
                return World.load(path, trust=self.trust)
            words = [word for word in self.overrides if word.startswith("data")]
            return load_recipe(path, words, self.trust)
        evaluator = evaluator_for(self.source, best_device())
        if evaluator is None:
            raise AvenirError(
                f"no evaluator ships for {type(self.source).__name__} at {self.source.size}: name "
                "a recipe for one, or its run folder, as `evaluator` in the protocol"
            )
        return evaluator

    def _check_judge(self) -> None:
        """Refuse an evaluator that is not independent of every arm's teacher."""
        evaluator = _card_of(self.judge, self.trust)
        for arm in self.protocol.arms:
            for teacher in teachers(self._recipe(arm, 0)):
                check_independent(evaluator, _card_of(teacher, self.trust))

    def _hash(self) -> str:
        """Hash the protocol, every arm's recipe in full, and the data.

        Under the names of format 1: a setting that gets another name is the same experiment.
        """
        recipes: list[Any] = [
            _without_paths(self._recipe(arm, choice).model_dump(mode="json"))
            for arm in self.protocol.arms
            for choice in range(max(1, len(self.protocol.grid)))
        ]
        if isinstance(self.judge, Recipe):
            recipes.append(_without_paths(self.judge.model_dump(mode="json")))
        else:
            recipes.append(self.judge.card.provenance.get("key"))
        declared = self.protocol.model_dump(mode="json")
        for words in (*declared["arms"].values(), *declared["grid"]):
            words[:] = map(renamed.original_word, words)
        every = [each if isinstance(each, str) else renamed.originals(each) for each in recipes]
        text = json.dumps([declared, every, self.source.fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def reseeded(recipe: Recipe, seed: int) -> Recipe:
    """Give a recipe and the encoders it stands on one seed; a teacher keeps its own."""
    changes: dict[str, Any] = {"seed": seed}
    parent = recipe.parents.get("tokenizer")
    if isinstance(parent, Recipe):
        changes["tokenizer"] = reseeded(parent, seed).model_dump(mode="json", exclude_none=True)
    return recipe.model_copy(update=changes)


def teachers(recipe: Recipe) -> Iterator[Recipe | Path]:
    """Yield every teacher that a recipe stands on."""
    for role, parent in recipe.parents.items():
        if role == "teacher":
            yield parent
        elif isinstance(parent, Recipe):
            yield from teachers(parent)


def run_folder(recipe: Recipe, runs: Path) -> Path:
    """Name the folder of a run by what it is made of.

    Parents by their names, which are their content: a study that is moved finds its runs again.
    """
    parents = {
        role: Path(run_folder(each, runs).name if isinstance(each, Recipe) else each.name)
        for role, each in recipe.parents.items()
    }
    content = recipe.on(parents).model_dump_json()
    return runs / f"{recipe.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def read_row(path: Path, expected: str) -> ArmRun:
    """Read a row of the experiment with this hash."""
    try:
        row = ArmRun.parse(read_json(path), str(path))
    except AvenirError as error:
        raise DamagedError(
            f"{error}; remove {str(path)!r} and run the study again, which gathers it anew"
        ) from None
    if row.protocol != expected:
        raise AvenirError(
            f"{str(path)!r} is a row of experiment {row.protocol}, not of {expected}: protocol, "
            "recipes or data have changed since; gather it anew, or keep it elsewhere"
        )
    return row


def conclude(study: Study) -> Conclusion:
    """Compare arms by the rows there are; AvenirError while an arm has none."""
    protocol = study.protocol
    cells = [Cell(a, seed, study.chosen(a)) for a in protocol.arms for seed in protocol.seeds]
    rows = tuple(row for cell in cells if (row := study.row(cell)) is not None)
    if missing := protocol.arms.keys() - {row.arm for row in rows}:
        raise AvenirError(
            f"there is no row yet of {', '.join(sorted(missing))} in "
            f"{str(study.folder / 'rows')!r}: run the study without --merge, or gather them there"
        )
    baseline = next(iter(protocol.comparisons.values())).baseline
    return Conclusion(
        name=study.path.stem,
        protocol=study.hash,
        data=type(study.source).__name__.lower(),
        metrics=protocol.metrics,
        rows=rows,
        predictiveness=correlate_passports(rows, protocol.metrics[0], baseline, protocol.budget)
        if protocol.passport
        else (),
        comparisons=tuple(
            compare_arms(name, arms, rows, protocol.metrics, protocol.gate, protocol.budget)
            for name, arms in protocol.comparisons.items()
        ),
    )


def _card_of(made: World | Recipe | Path, trust: Iterable[str]) -> Card:
    """Return a run's card, or as much of it as is known before it is trained."""
    if isinstance(made, Path):
        return World.load(made, "cpu", trust).card
    if isinstance(made, World):
        return made.card
    source = make_source(made.data)
    known = {"data": source.fingerprint, **trained_on(source)}
    return make_card(made, source, None).model_copy(update={"provenance": known})


def _without_paths(table: dict[str, Any]) -> dict[str, Any]:
    """Leave out where data lie, of a recipe and of all it stands on."""
    table = dict(table)
    if isinstance(table.get("data"), dict):
        table["data"] = {k: v for k, v in table["data"].items() if k != "path"}
    for name in ("encoder", "tokenizer", "alignment", "teacher"):
        if isinstance(table.get(name), dict):
            table[name] = _without_paths(table[name])
    return table
