"""Does a latent's passport predict how fast a generator learns it?

Over the arms of a study, every number of the passport is ranked against how much better than the
baseline's the generator was, on average over log-steps from a quarter of the budget on: before, a
generator that knows nothing yet paints the mean of all scenes. Knows rows only.
"""

from collections.abc import Sequence

import numpy as np

from avenir.evaluation.metrics.bootstrap import Interval
from avenir.evaluation.metrics.correlation import spearman
from avenir.evaluation.probing.passport_results import Passport
from avenir.evaluation.questions.generation import SET_METRICS
from avenir.study.comparison import ArmRun, PassportCorrelation
from avenir.study.speed_up import SHARES, area


def correlate_passports(
    rows: Sequence[ArmRun], metric: str, baseline: str, budget: int | None = None
) -> tuple[PassportCorrelation, ...]:
    """Rank arms by every number that all of their passports have, and by what they learnt.

    An arm counts once, as the mean over the seeds that the baseline has a row for as well.
    """
    bases = {row.seed: row for row in rows if row.arm == baseline}
    up = SET_METRICS[metric].higher_is_better
    speeds: dict[str, list[float]] = {}
    numbers: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        base = bases.get(row.seed)
        if base is None or row.passport is None:
            continue
        first = SHARES[0] * (budget or base.steps[-1])
        late = [i for i, step in enumerate(base.steps) if step >= first]
        ours, theirs = ([r.marks[metric][i] for i in late] for r in (base, row))
        gain = area([base.steps[i] for i in late], ours, theirs, up)
        speeds.setdefault(row.arm, []).append(gain)
        numbers.setdefault(row.arm, []).append(numbers_of(row.passport))
    passports = [each for parts in numbers.values() for each in parts]
    shared = [name for name in (passports or [{}])[0] if all(name in each for each in passports)]
    found = []
    for name in shared:
        arms = {
            arm: (float(np.mean([p[name] for p in parts])), float(np.mean(speeds[arm])))
            for arm, parts in numbers.items()
        }
        worth, learnt = zip(*arms.values(), strict=True)
        found.append(
            PassportCorrelation(number=name, arms=arms, correlation=spearman(worth, learnt))
        )
    return tuple(found)


def numbers_of(passport: Passport) -> dict[str, float]:
    """Take the numbers of a passport by name; those that its latent has not are left out."""
    named: dict[str, float | Interval | None] = {
        "effective rank": passport.effective_rank,
        "high frequencies": passport.high_frequencies,
        "local similarity": passport.local_similarity,
        "temporal distance": passport.temporal_distance,
        "velocity variance": passport.velocity_variance,
        "velocity variance given the past": passport.velocity_variance_given_past,
        "inverse dynamics": passport.inverse_dynamics,
        "PSNR": passport.psnr,
    }
    named |= {f"linear dynamics, {s.step} ahead": s.r2 for s in passport.linear_dynamics}
    named |= {f"PSNR lost to noise of {n.noise:g}": n.drop for n in passport.noise_borne}
    decoded = {
        "Fréchet distance, reconstructed": passport.reconstructed,
        "Fréchet distance, interpolated (iFID)": passport.interpolated,
        "Fréchet distance, between (tFVD)": passport.between,
    }
    named |= {name: None if d is None else d.frechet for name, d in decoded.items()}
    values = {n: v.mean if isinstance(v, Interval) else v for n, v in named.items()}
    return {name: float(value) for name, value in values.items() if value is not None}
