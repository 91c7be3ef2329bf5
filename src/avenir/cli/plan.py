"""`avenir plan`: act to reach a picture, in the dream or, judged, in the simulator."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from avenir.cli.arguments import Overrides, Run, Seed, Trust, opened

if TYPE_CHECKING:
    from rich.table import Table

    from avenir.evaluation.metrics.bootstrap import Interval
    from avenir.evaluation.questions.planning import Acting
    from avenir.evaluation.questions.policy_ranking import Ranking
    from avenir.planning import PlanningConfig
    from avenir.world import World


def plan(
    run: Run,
    overrides: Overrides = None,
    goal: Annotated[
        Path | None, typer.Option(help="Picture to reach; without one, the simulator judges.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="With --goal: its first seconds are observed.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="Time to reach it.")] = 1.2,
    observe: Annotated[float, typer.Option(min=0.01, help="Seconds that are observed.")] = 1.0,
    starts: Annotated[int, typer.Option(min=2, help="Without --goal: starts to act from.")] = 100,
    method: Annotated[
        Literal["cem", "mppi"], typer.Option(help="The best futures, or all by how good they are.")
    ] = "cem",
    candidates: Annotated[int, typer.Option(min=2, help="Futures imagined in a round.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of search before every step.")] = 3,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Draw futures in so many steps; as the world does.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path, typer.Option(help="With --goal the mp4 to write, with a csv beside it; or json.")
    ] = Path("plan.mp4"),
    trust: Trust = None,
) -> None:
    """Seek actions that lead to a picture, by imagining many futures and keeping the nearest.

    With --goal and --video: write the actions as a csv and what is imagined under them as an mp4.
    Without: on the synthetic world, act in its simulator from held-out starts, looking again after
    every step, beside a script that reads the simulator, random actions and none; and rank
    policies that keep to the road, more or less, in the dream and in the simulator.
    """
    from avenir.errors import AvenirError
    from avenir.files import write_whole
    from avenir.planning import PlanningConfig
    from avenir.training.recipe import data_of

    world = opened(run, trust)
    num_steps = max(1, round(seconds * world.card.fps / world.encoder.compression.t))
    table = {"method": method, "num_candidates": candidates, "num_rounds": rounds}
    table |= {"num_elites": max(1, candidates // 8), "sampler_steps": steps}
    config = PlanningConfig.parse(table | {"num_steps": num_steps})
    if (goal is None) != (video is None):
        raise AvenirError("--goal and --video go together: a picture to reach, and from where")
    if goal is not None and video is not None:
        _reach(world, video, goal, config, observe, seed, out)
        return
    data = data_of(run, overrides or [], trust or ())
    found = _judged(world, data, starts, observe, seconds, config, seed)
    out = out.with_suffix(".json")
    write_whole(out, found.model_dump_json(indent=2) + "\n")
    _show(found, out)


def _reach(
    world: "World",
    video: Path,
    goal: Path,
    config: "PlanningConfig",
    observe: float,
    seed: int,
    out: Path,
) -> None:
    """Plan once, to the end, and imagine what the plan leads to."""
    import csv

    from avenir.device import generator
    from avenir.files import whole
    from avenir.planning import latents_of
    from avenir.planning import plan as seek
    from avenir.training.log import say
    from avenir.video import Writer, read

    observed = world.fitted(read(video, seconds=observe, fps=world.card.fps))
    picture = read(goal)[:1]
    state = world.start(observed.video, {})
    drawn = generator("plan", seed, device=state.seen.device)
    found = seek(world, state, latents_of(world, picture), config, drawn)
    actions = found.actions.repeat_interleave(world.encoder.compression.t, dim=0)
    imagined = world.predict(observed, len(actions) / world.card.fps, actions, seed=seed)
    with Writer(out, fps=observed.fps) as writer:
        writer.append(observed)
        writer.append(imagined)
    signal = world.action_signal
    assert signal is not None  # `plan` refuses worlds without
    names = signal.names or tuple(f"action {i}" for i in range(signal.size))
    with whole(out.with_suffix(".csv")) as part, part.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(names)
        rows.writerows(actions.tolist())
    say(f"imagined to end {found.cost:.3f} from the goal, in latents")
    say(f"{out}: {imagined.seconds:.2f} s imagined; its actions in {out.with_suffix('.csv')}")


def _judged(
    world: "World",
    data: dict[str, Any],
    starts: int,
    observe: float,
    seconds: float,
    config: "PlanningConfig",
    seed: int,
) -> "Acting":
    from avenir.data.synthetic import Synthetic
    from avenir.errors import AvenirError
    from avenir.evaluation.questions.planning import measure_acting
    from avenir.training.log import Preparation
    from avenir.training.tasks import make_source

    if world.discovers:
        raise AvenirError(
            f"{world.card.name!r} acts by actions that it discovered, of which no simulator knows: "
            "give --goal and --video"
        )
    if data["kind"] == "synthetic":
        # Nothing flies in a simulator that is stepped, and it is day.
        data |= {"captions": None, "weather": None}
    source = make_source(data)
    if not isinstance(source, Synthetic) or source.views > 1:
        raise AvenirError(
            "nobody can say where an action would have led: only the synthetic world has a "
            "simulator, seen from above; give --goal and --video to plan without one"
        )
    past = round(observe * source.fps)
    return measure_acting(world, source, starts, past, seconds, config, seed, Preparation())


def _show(found: "Acting", out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from avenir.evaluation.questions.planning import REACHED

    title = f"{found.num_starts} starts, {found.seconds:g} s to come within {REACHED:g} px"
    table = Table(
        "who acts", "reached", "distance, px", "above random", "above nothing", title=title
    )
    for name, acted in found.policies.items():
        table.add_row(
            name,
            _cell(acted.reached, ".0%"),
            _cell(acted.distance, ".1f"),
            _cell(acted.above_random, ".0%"),
            _cell(acted.above_nothing, ".0%"),
        )
    console = Console()
    console.print(table)
    if found.ranking is not None:
        console.print(_ranked(found.ranking))
    console.print(f"written to {out}")


def _ranked(ranking: "Ranking") -> "Table":
    from rich.table import Table

    dreamt, read = (
        _span(kendall.tau, kendall.low, kendall.high, ".2f")
        for kendall in (ranking.dreamt, ranking.read)
    )
    title = f"{ranking.seconds:g} s on the road: Kendall's tau {dreamt}; by reading alone {read}"
    table = Table("policy", "in the simulator", "as read there", "in the dream", title=title)
    for name, returned in ranking.policies.items():
        cells = (returned.true, returned.read, returned.dreamt)
        table.add_row(name, *(_cell(each, ".0%") for each in cells))
    return table


def _cell(value: "Interval", spec: str) -> str:
    return _span(value.mean, value.low, value.high, spec)


def _span(value: float | None, low: float | None, high: float | None, spec: str) -> str:
    if value is None:
        return "–"
    bounds = "" if low is None else f" [{low:{spec}}, {high:{spec}}]"
    return f"{value:{spec}}{bounds}".replace("-", "−")
