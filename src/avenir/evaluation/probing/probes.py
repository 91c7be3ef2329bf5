"""How a probe learns, and how it is scored: ridge regression, likeness, one query that attends.

Ridge regression and nearest neighbours are closed forms in float64; `attend` alone is a short,
seeded training. Every score is one number per clip, so that recordings can be drawn again and
encoders be paired clip by clip. Knows rows of numbers: no video, no encoder and no label by name.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, normalize

from avenir.device import generator, seed_of

Rows = Float[Tensor, "n d"]
Targets = Float[Tensor, "n k"]

PENALTIES = 10.0 ** torch.arange(-4, 5, dtype=torch.float64)
"""What ridge regression chooses from, where every feature has a mean square of one."""

NUM_NEIGHBOURS = 20

_HEADS, _STEPS, _BATCH, _RATE = 4, 300, 128, 1e-2


class Ridge:
    """Linear maps for any penalty λ: the least |Y - X·W|²/n + λ|W|² (Hoerl & Kennard 1970).

    Features are standardised by the rows it was made of; those that never differ are left out.
    Solved in the smaller of two spaces: of features (primal) or of rows (dual).
    """

    def __init__(self, x: Rows, y: Targets, dual: bool | None = None) -> None:
        self.mean, self.middle = x.double().mean(0), y.double().mean(0)
        spread = x.double().std(0, correction=0)
        self.scale = torch.where(spread > 1e-6 * (1 + self.mean.abs()), 1 / spread, 0.0)
        features, targets = self.standardised(x), y.double() - self.middle
        if dual is None:
            dual = x.shape[0] < x.shape[1]
        gram = features @ features.T if dual else features.T @ features
        values, vectors = torch.linalg.eigh(gram / len(x))
        # What the rows do not span carries nothing, whatever the penalty.
        spanned = values > 1e-12 * values[-1].clamp(min=1e-12)
        self.values, vectors = values[spanned], vectors[:, spanned]
        self.basis = features.T @ vectors if dual else vectors
        self.found = vectors.T @ (targets if dual else features.T @ targets) / len(x)

    def standardised(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Bring rows to the mean and deviation of the rows that were learnt from."""
        return (x.double() - self.mean).mul_(self.scale)

    def weights(self, penalties: Float[Tensor, " k"]) -> Float[Tensor, "d k"]:
        """Return the map of every target under its own penalty."""
        return self.basis @ (self.found / (self.values[:, None] + penalties))


class Probe(NamedTuple):
    """A ridge regression and the penalty of every target."""

    ridge: Ridge
    penalties: Float[Tensor, " k"]

    def __call__(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """Predict."""
        ridge = self.ridge
        return ridge.standardised(x) @ ridge.weights(self.penalties) + ridge.middle


def learn(x: Rows, y: Targets, held_out: Bool[Tensor, " n"]) -> Probe:
    """Choose every target's penalty on the held-out rows, then learn from all."""
    trial = Ridge(x[~held_out], y[~held_out])
    judged, truth = trial.standardised(x[held_out]), y[held_out].double() - trial.middle
    errors = [
        (judged @ trial.weights(penalty.expand(y.shape[1])) - truth).square().mean(0)
        for penalty in PENALTIES
    ]
    return Probe(Ridge(x, y), PENALTIES[torch.stack(errors).argmin(0)])


def neighbours(x: Rows, y: Targets, asked: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
    """Return the mean target of the rows nearest by the cosine about the mean row."""
    mean = x.double().mean(0)
    known, sought = (normalize(rows.double() - mean, dim=1) for rows in (x, asked))
    nearest = (sought @ known.T).topk(min(NUM_NEIGHBOURS, len(x)), dim=1).indices
    return y.double()[nearest].mean(1)


class Query(nn.Module):
    """A few learnt queries attend over positions; a linear map reads what they gather.

    The attentive probe of V-JEPA (2404.08471) without its further layers. With queries that are the
    same for all, keys and values fold into the maps before and after: nothing is lost.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(channels, _HEADS, bias=False)
        self.read = nn.Linear(_HEADS * channels, outputs)

    def forward(self, x: Float[Tensor, "b p c"]) -> Float[Tensor, "b k"]:
        """Gather and read."""
        return self.read((self.weigh(x).softmax(1).mT @ x).flatten(1))


def attend(
    x: Float[Tensor, "n p c"],
    counts: Float[Tensor, "n k"],
    asked: Float[Tensor, "m p c"],
    seed: int,
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]]:
    """Train one query for a fixed number of steps; return predicted counts, and chances of any."""
    mean, spread = x.mean((0, 1)), x.std((0, 1)).clamp(min=1e-6)
    middle, width = counts.mean(0), counts.std(0).clamp(min=1e-6)
    x, wanted, present = (x - mean) / spread, (counts - middle) / width, (counts > 0).float()
    rng = generator("attend", seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed_of("query", seed))
        query = Query(x.shape[2], 2 * counts.shape[1])
    optim = torch.optim.AdamW(query.parameters(), lr=_RATE, weight_decay=0.05)
    for step in range(_STEPS):
        optim.param_groups[0]["lr"] = _RATE * (1 - step / _STEPS)
        rows = torch.randint(len(x), (_BATCH,), generator=rng)
        number, logit = query(x[rows]).chunk(2, dim=1)
        loss = mse_loss(number, wanted[rows])
        loss = loss + binary_cross_entropy_with_logits(logit, present[rows])
        optim.zero_grad()
        loss.backward()
        optim.step()
    with torch.no_grad():
        number, logit = query((asked - mean) / spread).chunk(2, dim=1)
    return number * width + middle, logit.sigmoid()


def ratio(parts: Float[Tensor, "n k"], wholes: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Score every clip so that the mean is Σ parts / Σ wholes, meaned over columns.

    A clip's score is the ratio plus its influence on it (Davison & Hinkley 1997, section 2.7.2):
    means of drawn clips then spread as the ratio itself would. Columns without a whole are left
    out; NaN when there is no other.
    """
    parts, wholes = parts.double(), wholes.double()
    known = wholes.sum(0) > 0
    parts, wholes = parts[:, known], wholes[:, known]
    value = parts.sum(0) / wholes.sum(0)
    return (value + (parts - value * wholes) / wholes.mean(0)).mean(1)


def r2(
    predicted: Float[Tensor, "n *m k"],
    true: Float[Tensor, "n *m k"],
    counted: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:
    """Return 1 - squared error / squared deviation from the test mean, every target alike.

    Clips that are not `counted` weigh nothing.
    """
    shape = (len(true), -1, true.shape[-1])
    predicted, true = predicted.double().reshape(shape), true.double().reshape(shape)
    rows = torch.ones(len(true), dtype=torch.bool) if counted is None else counted
    mean = true[rows].mean((0, 1))
    errors, deviations = (
        (true - guess).square().sum(1) * rows[:, None] for guess in (predicted, mean)
    )
    return 1 - ratio(errors, deviations)


def accuracy(
    chosen: Int[Tensor, " m"], true: Int[Tensor, " m"], clip: Int[Tensor, " m"], num_clips: int
) -> Float[Tensor, " n"]:
    """Return the share of rows given their class, every class alike; `clip` owns each row."""
    classes = true.unique()
    asked = (true[:, None] == classes).double()
    right = asked * (chosen == true)[:, None]
    return ratio(per_clip(right, clip, num_clips), per_clip(asked, clip, num_clips))


def overlap(
    chosen: Int[Tensor, "n *m"], true: Int[Tensor, "n *m"], classes: Sequence[int]
) -> Float[Tensor, " n"]:
    """Return intersection over union, meaned over those of `classes` that occur."""
    known = torch.tensor([c for c in classes if (true == c).any()], dtype=true.dtype)
    ours, theirs = (labels.flatten(1)[..., None] == known for labels in (chosen, true))
    return ratio((ours & theirs).sum(1), (ours | theirs).sum(1))


def per_clip(
    values: Float[Tensor, "m k"], clip: Int[Tensor, " m"], num_clips: int
) -> Float[Tensor, "n k"]:
    """Sum the rows of every clip."""
    sums = torch.zeros(num_clips, values.shape[1], dtype=values.dtype)
    return sums.index_add_(0, clip, values)
