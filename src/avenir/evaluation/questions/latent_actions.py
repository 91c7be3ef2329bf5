"""Are the actions that a world discovered those that were truly taken?

Two ways to sort the same moments into kinds: by the code that the world reads in the video, and by
what was done at the wheel. How much one says of the other is their mutual information, less what
chance alone would give (Vinh, Epps & Bailey 2010): 1 for the same sorting, 0 for unrelated ones,
however many kinds there are. Codes dealt out anew, to other moments, say how large 0 looks.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import norm
from torch import Tensor

from avenir.config import Config
from avenir.console import Report
from avenir.device import seed_of
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.metrics.bootstrap import LEVEL, Interval
from avenir.evaluation.question import About, Measured, Question, QuestionInputs
from avenir.evaluation.report.findings import Finding, bounds
from avenir.shapes import Actions, Video
from avenir.signals import Signal

Labels = Int[NDArray[np.int64], " n"]


class LatentActions(Config):
    """How far discovered actions agree with those that were recorded."""

    num_clips: int
    """Windows looked at."""
    num_moments: int
    """Steps from one latent frame to the next in them."""
    num_codes: int
    """Codes that the world knows."""
    num_used: int
    """Codes that it read at least once."""
    num_kinds: int
    """Kinds of true action that occurred: every number low, in the middle, or high; or choices."""
    adjusted: Interval
    """Adjusted mutual information with the true actions."""
    shuffled: Interval
    """The same of codes dealt out to other moments."""


def measure_latent_actions(
    discover: Callable[[Video], Actions], held_out: HeldOut, f_t: int, report: Report
) -> LatentActions | None:
    """Sort every step of the windows by its code and by what was truly done.

    None where nothing was recorded.
    """
    signal = held_out.source.signals.get("actions")
    if signal is None:
        return None
    codes: list[Tensor] = []
    acts: list[Tensor] = []
    groups: list[str] = []
    count = 0
    for start, batch in held_out.batches("discovered actions", report):
        assert batch.video is not None
        found = discover(batch.video)
        count = found.shape[-1]
        # All actions that lead into one latent frame have one code; the first has none.
        into = slice(f_t - 1, found.shape[1] // f_t * f_t - 1)
        rows = found[:, into][:, ::f_t]
        codes.append(rows.argmax(-1))
        acts.append(batch.signals["actions"][:, into].unflatten(1, (-1, f_t)).mean(2))
        groups += [
            window.recording.name
            for window in held_out.windows[start : start + len(rows)]
            for _ in range(rows.shape[1])
        ]
    code = torch.cat(codes).flatten().numpy()
    kind = kinds_of(torch.cat(acts), signal).flatten().numpy()
    dealt = np.random.default_rng(seed_of("dealt", held_out.seed)).permutation(code)
    return LatentActions(
        num_clips=len(held_out.windows),
        num_moments=len(code),
        num_codes=count,
        num_used=len(np.unique(code)),
        num_kinds=len(np.unique(kind)),
        adjusted=_without_each(code, kind, groups),
        shuffled=_without_each(dealt, kind, groups),
    )


def kinds_of(actions: Float[Tensor, "b t a"], signal: Signal) -> Int[Tensor, "b t"]:
    """Sort actions: choices as they are, numbers into thirds of their range, side by side."""
    if signal.is_choice:
        return actions.argmax(-1)
    flat = actions.flatten(0, 1)
    low = torch.tensor(signal.low) if signal.low else flat.amin(0)
    high = torch.tensor(signal.high) if signal.high else flat.amax(0)
    third = ((flat - low) / (high - low).clamp(min=1e-9) * 3).long().clamp(0, 2)
    _, kinds = third.unique(dim=0, return_inverse=True)
    return kinds.view(actions.shape[:-1])


def adjusted_mutual_information(a: Labels, b: Labels) -> float:
    """Say how much one sorting tells of another beyond chance, over the mean of their entropies.

    Vinh et al. 2010, JMLR 11, eq. 10 (chance, by the hypergeometric distribution) and table 2.
    """
    table, n = _table(a, b), len(a)
    rows, columns = table.sum(1), table.sum(0)
    found = mutual_information(a, b)
    entropy = (_entropy(rows / n) + _entropy(columns / n)) / 2
    chance = _by_chance(rows[rows > 0], columns[columns > 0], n)
    if entropy - chance < 1e-12:
        return 1.0 if entropy < 1e-12 else 0.0
    return float((found - chance) / (entropy - chance))


def mutual_information(a: Labels, b: Labels) -> float:
    """Say how much one sorting tells of another, in nats; chance alone gives more than 0."""
    table, n = _table(a, b), len(a)
    i, j = table.nonzero()
    joint = table[i, j]
    by_chance = table.sum(1)[i] * table.sum(0)[j] / n
    return float((joint / n * np.log(joint / by_chance)).sum())


def _table(a: Labels, b: Labels) -> NDArray:
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    return table


def _entropy(shares: NDArray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _by_chance(rows: NDArray, columns: NDArray, n: int) -> float:
    """Average the mutual information over all tables with these sums."""
    total = 0.0
    for a in rows:
        for b in columns:
            joint = np.arange(max(1, a + b - n), min(a, b) + 1)
            chance = np.exp(
                gammaln(a + 1)
                + gammaln(b + 1)
                + gammaln(n - a + 1)
                + gammaln(n - b + 1)
                - gammaln(n + 1)
                - gammaln(joint + 1)
                - gammaln(a - joint + 1)
                - gammaln(b - joint + 1)
                - gammaln(n - a - b + joint + 1)
            )
            total += float((joint / n * np.log(n * joint / (a * b)) * chance).sum())
    return total


def _without_each(code: Labels, kind: Labels, groups: Sequence[str]) -> Interval:
    """Leave out one recording after the other (the jackknife; Efron & Stein 1981).

    Drawing recordings again would repeat moments, and what is repeated looks like agreement.
    """
    mean = adjusted_mutual_information(code, kind)
    names, of = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return Interval(mean=round(mean, 6))
    without = np.array(
        [
            adjusted_mutual_information(code[of != number], kind[of != number])
            for number in range(len(names))
        ]
    )
    spread = np.sqrt((len(names) - 1) * without.var())
    reach = float(norm.ppf((1 + LEVEL) / 2) * spread)
    return Interval(mean=round(mean, 6), low=round(mean - reach, 6), high=round(mean + reach, 6))


class LatentActionsQuestion(Question):
    """Whether discovered actions are the true ones."""

    Answer = LatentActions
    order = 50

    def applies(self, asked: QuestionInputs) -> bool:
        """Ask worlds that discover actions."""
        return asked.held_out.discover is not None

    def measure(self, asked: QuestionInputs) -> Measured | None:
        """Sort moments by code and by true action."""
        discover, f_t = asked.held_out.discover, asked.world.encoder.compression.t
        assert discover is not None
        found = measure_latent_actions(discover, asked.held_out, f_t, asked.report)
        return None if found is None else Measured(found)

    def findings(self, answer: LatentActions, about: About) -> list[Finding]:
        """Say whether the two have to do with each other."""
        return [_finding(answer)]

    def section(self, measured: Measured, about: About) -> str:
        """Show nothing beside the finding."""
        return ""


def _finding(found: LatentActions) -> Finding:
    """Say whether codes and true actions have to do with each other."""
    adjusted = found.adjusted
    dealt = found.shuffled
    assert adjusted.mean is not None and dealt.mean is not None
    apart = adjusted.low is not None and dealt.high is not None and adjusted.low > dealt.high
    verdict = "agree with" if apart else "show no relation to"
    return Finding(
        f"{adjusted.mean:.2f}",
        f"Discovered actions {verdict} the true ones: adjusted mutual information of "
        f"{found.num_used} codes with {found.num_kinds} kinds of true action, 1 if they "
        f"were the same; dealt out to other moments {dealt.mean:.2f}. Here its "
        "true actions are those that it reads in the true future.",
        bounds(adjusted),
        "good" if apart else "bad",
    )
