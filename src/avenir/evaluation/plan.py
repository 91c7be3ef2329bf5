"""Planning with a world: towards a picture, or judged in the simulator. What `avenir plan` runs."""

import csv
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from avenir.clip import Clip
from avenir.console import Report
from avenir.data import Source
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.evaluation.initial_states import starts_of
from avenir.evaluation.questions.planning import PlanningResult, measure_planning
from avenir.evaluation.questions.policy_ranking import (
    RANKED_SECONDS,
    PolicyRanking,
    measure_policy_ranking,
)
from avenir.files import whole
from avenir.planning import Plan, PlanningConfig, latents_of, plan
from avenir.video import Writer
from avenir.world import World


class JudgedPlanning(PlanningResult):
    """What `avenir plan` writes where a simulator judges."""

    ranking: PolicyRanking | None
    """How other policies rank in the world and in the simulator; none where no reader knows its
    frames."""


def plan_in_simulator(
    world: World,
    source: Source,
    num_starts: int,
    past: int,
    seconds: float,
    planning: PlanningConfig,
    seed: int,
    report: Report,
) -> JudgedPlanning:
    """Plan from held-out starts in the simulator, and rank policies from the same starts.

    `past` frames are observed; `seconds` is the time to reach a goal. Raises AvenirError for data
    without a simulator, for a world that discovered its actions, and when too few goals lie far
    enough away.
    """
    if world.discovers:
        raise AvenirError(
            f"{world.card.name!r} acts by actions that it discovered, of which no simulator knows: "
            "give --goal and --video"
        )
    if not source.has_simulator:
        raise AvenirError(
            "these data have no simulator to show where an action would have led: only the "
            "synthetic world has one, seen from above; give --goal and --video to plan without"
        )
    source, f_t = source.simulated(), world.encoder.compression.t
    num_steps = max(1, round(seconds * source.fps / f_t))
    starts = starts_of(source, num_starts, past, num_steps * f_t, seed, report)
    found = measure_planning(world, source, starts, num_steps, planning, seed, report)
    ranking = measure_policy_ranking(world, source, starts, RANKED_SECONDS, seed, report)
    return JudgedPlanning(**dict(found), ranking=ranking)


def plan_to_picture(
    world: World, observed: Clip, picture: Clip, planning: PlanningConfig, seed: int
) -> tuple[Plan, Float[Tensor, "T a"], Clip]:
    """Plan once, to the end; return the plan, its actions of every frame, `T a`, and the future
    that is imagined under them.
    """
    state = world.start(observed.video, {})
    drawn = generator("plan", seed, device=state.seen.device)
    found = plan(world, state, latents_of(world, picture), planning, drawn)
    actions = found.actions.repeat_interleave(world.encoder.compression.t, dim=0)
    imagined = world.predict(observed, len(actions) / world.card.fps, actions, seed=seed)
    return found, actions, imagined


def write_plan(
    out: Path, world: World, observed: Clip, imagined: Clip, actions: Float[Tensor, "T a"]
) -> Path:
    """Write what was observed and imagined as an mp4, and the actions as a csv beside it.

    Returns the path of the csv. The world has actions.
    """
    with Writer(out, fps=observed.fps) as writer:
        writer.append(observed)
        writer.append(imagined)
    signal = world.action_signal
    assert signal is not None  # planning refuses worlds without
    names = signal.names or tuple(f"action {i}" for i in range(signal.size))
    table = out.with_suffix(".csv")
    with whole(table) as part, part.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(names)
        rows.writerows(actions.tolist())
    return table
