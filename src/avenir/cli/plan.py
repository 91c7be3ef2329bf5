"""`avenir plan`: actions that lead to a picture, or planning judged in the simulator."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avenir.cli.arguments import Overrides, Run, Seed, Trust, opened

if TYPE_CHECKING:
    from rich.table import Table

    from avenir.evaluation.metrics.bootstrap import Interval
    from avenir.evaluation.plan import JudgedPlanning
    from avenir.evaluation.questions.policy_ranking import PolicyRanking


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
    Without: on the synthetic world, plan in its simulator from held-out starts, looking again after
    every step, beside a script that reads the simulator, random actions and none; and rank
    policies, good and bad, by what they do in the world model and in the simulator.
    """
    from avenir.console import PrintedReport, say
    from avenir.errors import AvenirError
    from avenir.evaluation.plan import plan_in_simulator, plan_to_picture, write_plan
    from avenir.files import write_whole
    from avenir.planning import PlanningConfig
    from avenir.training.objectives import make_source
    from avenir.training.recipe import data_of
    from avenir.video import read

    world = opened(run, trust)
    num_steps = max(1, round(seconds * world.card.fps / world.encoder.compression.t))
    table = {"method": method, "num_candidates": candidates, "num_rounds": rounds}
    table |= {"num_elites": max(1, candidates // 8), "sampler_steps": steps}
    config = PlanningConfig.parse(table | {"num_steps": num_steps})
    if (goal is None) != (video is None):
        raise AvenirError("--goal and --video go together: a picture to reach, and from where")
    if goal is not None and video is not None:
        observed = world.fitted(read(video, seconds=observe, fps=world.card.fps))
        found, actions, imagined = plan_to_picture(world, observed, read(goal)[:1], config, seed)
        rows = write_plan(out, world, observed, imagined, actions)
        say(f"imagined to end {found.cost:.3f} from the goal, in latents")
        say(f"{out}: {imagined.seconds:.2f} s imagined; its actions in {rows}")
        return
    source = make_source(data_of(run, overrides or [], trust or ()))
    past = round(observe * source.fps)
    report = PrintedReport()
    judged = plan_in_simulator(world, source, starts, past, seconds, config, seed, report)
    out = out.with_suffix(".json")
    write_whole(out, judged.model_dump_json(indent=2) + "\n")
    _show(judged, out)


def _show(judged: "JudgedPlanning", out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from avenir.evaluation.questions.planning import REACHED

    title = f"{judged.num_starts} starts, {judged.seconds:g} s to come within {REACHED:g} px"
    columns = ("policy", "reached", "distance, px", "above random", "above nothing")
    table = Table(*columns, title=title)
    for name, found in judged.policies.items():
        shares = (found.reached, found.above_random, found.above_nothing)
        reached, *above = (_cell(share, ".0%") for share in shares)
        table.add_row(name, reached, _cell(found.distance, ".1f"), *above)
    console = Console()
    console.print(table)
    if judged.ranking is not None:
        console.print(_ranked(judged.ranking))
    console.print(f"written to {out}")


def _ranked(ranking: "PolicyRanking") -> "Table":
    from rich.table import Table

    imagined, read = (_cell(each.interval, ".2f") for each in (ranking.imagined, ranking.read))
    title = f"{ranking.seconds:g} s on the road: Kendall's tau {imagined}; by reading alone {read}"
    table = Table("policy", "in the simulator", "as read there", "in the world", title=title)
    for name, returned in ranking.policies.items():
        cells = (returned.true, returned.read, returned.imagined)
        table.add_row(name, *(_cell(each, ".0%") for each in cells))
    return table


def _cell(found: "Interval", spec: str) -> str:
    if found.mean is None:
        return "–"
    bounds = "" if found.low is None else f" [{found.low:{spec}}, {found.high:{spec}}]"
    return f"{found.mean:{spec}}{bounds}".replace("-", "−")
