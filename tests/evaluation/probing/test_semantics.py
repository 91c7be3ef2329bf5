"""Probes agree with closed forms; an oracle passes the battery, what knows nothing does not."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor
from typer import Typer
from typer.testing import CliRunner

from avenir.cli.probe import probe
from avenir.clip import Clip
from avenir.config import Config
from avenir.data import Recording, Skipped, Source, Window
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.encoders import Encoder, ParameterGroup, Posterior
from avenir.encoders.kl import KL, KLConfig
from avenir.errors import AvenirError
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.evaluation.probing.battery import Battery, Labels, VisibleThings
from avenir.evaluation.probing.probes import (
    PENALTIES,
    Probe,
    Ridge,
    accuracy,
    attend,
    learn,
    neighbours,
    overlap,
    r2,
    ratio,
)
from avenir.evaluation.probing.semantics import (
    AskedEncoder,
    Semantics,
    SemanticsConfig,
    SemanticsRow,
    choose_windows,
    look,
    measure_semantics,
    table,
)
from avenir.evaluation.probing.views import CELL, Subject, Views, area_means, references, view
from avenir.shapes import Compression, Video
from avenir.signals import Signal
from avenir.splits import Split
from tests.conftest import save_tiny_world

# Probes ------------------------------------------------------------------------------------------


def rows(n: int, d: int, k: int = 2) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, d, dtype=torch.double) * torch.rand(d) + torch.randn(d)
    return x, x[:, :3] @ torch.randn(3, k, dtype=torch.double) + torch.randn(n, k)


def predicted(ridge: Ridge, x: Tensor, penalty: float, k: int = 2) -> Tensor:
    return Probe(ridge, torch.full((k,), penalty, dtype=torch.double))(x)


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("d", [5, 40])
def test_without_a_penalty_ridge_is_least_squares(dual, d):
    x, y = rows(20, d)
    asked = torch.randn(7, d, dtype=torch.double)
    x_one, asked_one = (np.hstack([part, np.ones((len(part), 1))]) for part in (x, asked))
    weights = np.linalg.lstsq(x_one, y.numpy(), rcond=None)[0]
    found = Ridge(x, y, dual)
    if d < 20:
        expected = torch.from_numpy(asked_one @ weights)
        torch.testing.assert_close(predicted(found, asked, 0.0), expected)
    else:  # with more features than rows many maps pass through every row
        torch.testing.assert_close(predicted(found, x, 0.0), y)


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("d", [5, 40])
def test_with_a_penalty_ridge_is_the_normal_equation(dual, d):
    x, y = rows(20, d)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    gram = z.T @ z / 20 + 0.3 * torch.eye(d)
    expected = torch.linalg.solve(gram, z.T @ (y - y.mean(0)) / 20)
    weights = Ridge(x, y, dual).weights(torch.tensor([0.3, 0.3], dtype=torch.double))
    torch.testing.assert_close(weights, expected)


def test_a_feature_that_never_differs_changes_nothing():
    x, y = rows(20, 5)
    with_constant = torch.cat([x, torch.full((20, 1), 0.7)], dim=1)
    one, other = (
        predicted(Ridge(x, y), x, 0.1),
        predicted(Ridge(with_constant, y), with_constant, 0.1),
    )
    torch.testing.assert_close(one, other)


def test_penalties_are_those_that_do_best_on_held_out_rows():
    x = torch.randn(60, 50, dtype=torch.double)
    y = torch.stack([x[:, 0], torch.randn(60, dtype=torch.double)], dim=1)
    held_out = torch.arange(60) % 5 == 0
    trial = Ridge(x[~held_out], y[~held_out])
    errors = torch.stack(
        [
            (predicted(trial, x[held_out], float(p)) - y[held_out]).square().mean(0)
            for p in PENALTIES
        ]
    )
    found = learn(x, y, held_out)
    assert torch.equal(found.penalties, PENALTIES[errors.argmin(0)])
    assert found.penalties[0] < found.penalties[1], "a target that is noise needs a higher one"
    torch.testing.assert_close(
        found(x)[:, :1], predicted(Ridge(x, y[:, :1]), x, float(found.penalties[0]), 1)
    )


def test_neighbours_are_the_most_alike_about_the_mean():
    x, y = rows(60, 6)
    asked = torch.randn(4, 6, dtype=torch.double)
    for row, given in zip(asked, neighbours(x, y, asked), strict=True):
        likeness = torch.cosine_similarity(row - x.mean(0), x - x.mean(0), dim=1)
        nearest = likeness.argsort(descending=True)[:20]
        torch.testing.assert_close(given, y[nearest].mean(0))


def test_a_query_finds_what_a_mean_over_places_hides():
    def made(n: int) -> tuple[Tensor, Tensor]:
        # Somewhere, marked by the first channel, the second tells the count; elsewhere it is noise.
        x, counts = torch.randn(n, 16, 5), torch.randint(0, 3, (n, 1)).float()
        there = torch.randint(16, (n,))
        x[..., 0] = 0.0
        x[torch.arange(n), there, 0] = 1.0
        x[torch.arange(n), there, 1] = counts[:, 0] - 1
        return x, counts

    (x, counts), (asked, truth) = made(600), made(200)
    number, chance = attend(x, counts, asked, seed=1)
    assert r2(number, truth).mean() > 0.9
    assert ((chance > 0.5) == (truth > 0)).float().mean() > 0.95
    assert r2(asked.mean(1)[:, 1:2], truth).mean() < 0.3
    again = attend(x, counts, asked, seed=1)[0]
    assert torch.equal(number, again)


# Scores ------------------------------------------------------------------------------------------


def test_a_ratio_of_sums_is_the_mean_of_its_scores_and_spreads_as_the_ratio_does():
    wholes = torch.rand(400, 1, dtype=torch.double) + 0.1
    parts = wholes * (0.5 + 0.2 * torch.randn(400, 1, dtype=torch.double))
    scores = ratio(parts, wholes)
    assert scores.mean().item() == pytest.approx((parts.sum() / wholes.sum()).item())
    found = interval(scores, [str(i) for i in range(400)])
    draws = torch.randint(400, (2000, 400))
    ratios = (parts[draws].sum(1) / wholes[draws].sum(1))[:, 0]
    low, high = torch.quantile(ratios, torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    assert found.low == pytest.approx(low, abs=0.004)
    assert found.high == pytest.approx(high, abs=0.004)


def test_columns_without_a_whole_are_left_out():
    parts = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    wholes = torch.tensor([[2.0, 0.0], [4.0, 0.0]])
    assert ratio(parts, wholes).mean().item() == pytest.approx(4 / 6)
    assert ratio(parts[:, 1:], wholes[:, 1:]).isnan().all()


def test_r2_is_the_mean_over_targets_and_leaves_out_what_is_not_counted():
    true, guess = torch.randn(30, 3) * torch.tensor([1.0, 5.0, 0.1]), torch.randn(30, 3)
    counted = torch.arange(30) < 25
    kept, told = true[:25], guess[:25]
    expected = 1 - (kept - told).square().sum(0) / (kept - kept.mean(0)).square().sum(0)
    assert r2(guess, true, counted).mean().item() == pytest.approx(expected.mean().item(), rel=1e-5)
    assert r2(true, true).mean() == 1
    assert r2(true.mean(0).expand(30, 3), true).mean().item() == pytest.approx(0, abs=1e-5)


def test_r2_over_places_is_that_of_all_places_together():
    true, guess = torch.randn(2, 6, 4, 5, 3).unbind(0)
    together = r2(guess.reshape(-1, 3), true.reshape(-1, 3)).mean()
    assert r2(guess, true).mean().item() == pytest.approx(together.item())


def test_every_class_counts_alike_in_accuracy():
    true, chosen = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    clip = torch.tensor([0, 0, 1, 1])
    assert accuracy(chosen, true, clip, 3).mean().item() == pytest.approx((2 / 3 + 1) / 2)


def test_overlap_is_intersection_over_union_of_classes_that_occur():
    true = torch.tensor([[[0, 0], [1, 1]], [[0, 0], [0, 0]]])
    chosen = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [0, 2]]])
    assert overlap(chosen, true, [0, 1, 2, 3]).mean().item() == pytest.approx((4 / 6 + 2 / 3) / 2)
    assert overlap(chosen, true, [2]).isnan().all()


# Views -------------------------------------------------------------------------------------------


def blocks(compression: Compression) -> Subject:
    """Latents are the means of blocks, edges repeated as encoders do."""
    return Subject.of("blocks", Blocks(compression))


class Blocks(Encoder):
    Config = Config

    def __init__(self, compression: Compression = Compression(4, 8, 8)) -> None:
        super().__init__(compression, 3)

    def raw_posterior(self, video: Video) -> Posterior:
        t, h, w = self.compression
        b, num, c, height, width = video.shape
        split = video.reshape(b, num // t, t, c, height // h, h, width // w, w)
        return Posterior(split.mean((2, 5, 7)))

    def losses(self, batch, progress) -> dict[str, Tensor]:
        return {}

    def parameter_groups(self) -> list[ParameterGroup]:
        return []


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (63, 47)])
@pytest.mark.parametrize("step", [1, 4, 8, 16])
def test_a_single_bright_pixel_lands_where_it_is(size, step):
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)):
        video = torch.zeros(1, 8, 3, *size)
        video[0, 7, :, y, x] = 1.0
        seen = view(blocks(Compression(1, step, step)), video)
        here = seen.at(torch.tensor([0]), torch.tensor([float(x)]), torch.tensor([float(y)]))
        assert here.max() > 0 and here.max() == seen.places.max()
        *before, last = seen.pooled[0]
        grid = [min(4, -(-pixels // step)) for pixels in size]
        assert torch.stack(before).abs().max() == 0
        # What a latent stands for, repeated edges left out, is shared among the cells it covers.
        expected = torch.zeros(3, size[0], size[1])
        bottom, right = (p // step * step for p in (y, x))
        bright = here.max() if step >= CELL else 1.0
        expected[:, bottom : bottom + step, right : right + step] = bright
        fine = expected.repeat_interleave(grid[0], 1).repeat_interleave(grid[1], 2)
        fine = fine.unflatten(1, (grid[0], -1)).unflatten(3, (grid[1], -1)).mean((2, 4))
        torch.testing.assert_close(last, fine.flatten())


def test_area_means_are_those_of_pixels():
    latents = torch.randn(2, 3, 5, 7)
    pixels = latents.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :36, :56]
    for counts in ((4, 4), (9, 7), (36, 56)):
        cells = [size / count for size, count in zip((36, 56), counts, strict=True)]
        found = area_means(latents, counts, cells, (8, 8), (36, 56))
        expected = pixels.unflatten(2, (counts[0], -1)).unflatten(4, (counts[1], -1)).mean((3, 5))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("step", "cells", "places"), [(1, 1, 16), (4, 1, 16), (8, 2, 8), (16, 4, 4), (32, 8, 2)]
)
def test_a_place_is_a_latent_or_a_cell_whichever_is_larger(step, cells, places):
    seen = view(blocks(Compression(4, step, step)), torch.zeros(2, 8, 3, 64, 64))
    assert seen.cells == (cells, cells)
    assert seen.places.shape == (2, places, places, 3)


def test_a_view_is_of_every_group_of_the_window():
    video = torch.arange(8.0).view(1, 8, 1, 1, 1).expand(1, 8, 3, 16, 16)
    for f_t, expected in ((2, [0.5, 2.5, 4.5, 6.5]), (4, [1.5, 5.5]), (8, [3.5])):
        pooled = view(blocks(Compression(f_t, 8, 8)), video).pooled
        assert pooled[0, :, 0].tolist() == expected


def test_references_are_seeded_and_the_supervised_one_needs_labels():
    labelled = Synthetic(SyntheticConfig(labels=True))
    names = [subject.name for subject in references(labelled, 0)]
    assert names == ["raw pixels", "random network", "supervised"]
    bare = Synthetic(SyntheticConfig(size=(32, 32)))
    video = torch.rand(2, 8, 3, 35, 41)
    pixels, random = references(bare, 0)
    assert pixels.encode(video).shape == (2, 2, 48, 5, 6)
    assert random.encode(video).shape == (2, 2, 64, 5, 6)
    assert torch.equal(random.encode(video), references(bare, 0)[1].encode(video))
    assert not torch.equal(random.encode(video), references(bare, 1)[1].encode(video))


# The battery -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked() -> tuple[Labels, Labels, Tensor]:
    """Truth of 200 training and 64 test windows, and which of the first are held out."""
    source = Synthetic(SyntheticConfig(labels=True))
    windows = choose_windows(source, [4], SemanticsConfig(num_train_windows=200, num_clips=64))
    train, _ = look([], source, windows.train, windows.instants, lambda *_: None)
    test, _ = look([], source, windows.test, windows.instants, lambda *_: None)
    return train, test, windows.held_out


def oracle(labels: Labels) -> Views:
    """Latents that are the truth: of frames, of the way between, of every place."""
    now = torch.cat([labels[name] for name in ("ego", "counts", "presence")], dim=1)
    between = torch.cat([labels[name] for name in ("velocity", "speed", "actions")], dim=1)
    between = torch.nn.functional.pad(between, (0, now.shape[1] - between.shape[1]))
    cells = labels["cells"].unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    places = cells.permute(0, 2, 4, 1, 3, 5).flatten(3)
    return Views(torch.stack([between, now], dim=1), places, (2, 2))


def means(battery: Battery) -> dict[tuple[str, str], float]:
    return {(name, metric): float(score.nanmean()) for name, metric, score in battery.scores()}


LINEAR = ["ego position", "counts", "ego velocity across", "ego speed", "inverse dynamics"]
COVERAGE = ["coverage", "coverage of ego", "coverage of vehicles", "coverage of pedestrians"]


def test_latents_that_hold_the_truth_pass(asked):
    train, test, held_out = asked
    found = means(Battery(train, test, oracle(train), oracle(test), held_out, 0))
    for name in LINEAR + COVERAGE:
        assert found[name, "R²"] > 0.99, name
    assert found["ego position", "px"] < 0.1
    assert found["presence", "accuracy"] > 0.99
    assert found["segmentation", "mIoU"] > 0.95, "but for cells in which two classes tie"
    assert found["ego position (likeness)", "R²"] > 0.5
    assert found["class of a thing", "accuracy"] > 0.7
    assert found["depth order", "accuracy"] > 0.7


def test_latents_that_say_nothing_fail(asked):
    train, test, held_out = asked
    learnt, judged = (
        Views(torch.full((n, 2, 6), 0.3), torch.full((n, 8, 8, 5), -1.1), (2, 2)) for n in (200, 64)
    )
    found = means(Battery(train, test, learnt, judged, held_out, 0))
    for (name, metric), value in found.items():
        if metric == "R²":
            assert value <= 1e-6, name
    assert found["ego position", "px"] > 5
    assert found["presence", "accuracy"] == pytest.approx(0.5, abs=0.01)
    assert found["class of a thing", "accuracy"] == pytest.approx(0.2, abs=0.01)
    assert found["depth order", "accuracy"] == pytest.approx(0.5, abs=0.01)
    assert found["segmentation of ego", "mIoU"] < 0.01


@pytest.mark.parametrize("steered", [True, False])
def test_a_state_is_predicted_by_linear_dynamics_and_no_better_than_they_are(steered):
    chance = torch.Generator().manual_seed(5)
    turn, push, seen = (
        torch.randn(*shape, generator=chance, dtype=torch.double)
        for shape in ((4, 4), (2, 4), (4, 3))
    )

    def windows(n: int) -> tuple[Labels, Views]:
        first, actions = (torch.randn(n, d, generator=chance, dtype=torch.double) for d in (4, 2))
        last = first @ turn + actions @ push
        labels = {"state": last @ seen} | ({"actions": actions} if steered else {})
        return labels, Views(torch.stack([first, last], 1), torch.zeros(n, 1, 1, 4), (1, 1))

    (train, learnt), (test, judged) = windows(400), windows(300)
    held_out = torch.arange(400) % 5 == 0
    found = means(Battery(train, test, learnt, judged, held_out, 0))
    assert found["state", "R²"] > 0.999
    if steered:
        assert found["state (predicted)", "R²"] > 0.999
        return
    # Without them nothing predicts what actions add: their share of the variance, per number.
    added = (push @ seen).square().sum(0)
    share = added / ((turn @ seen).square().sum(0) + added)
    assert found["state (predicted)", "R²"] == pytest.approx(float(1 - share.mean()), abs=0.08)


def test_the_truth_of_other_windows_is_worth_nothing(asked):
    train, test, held_out = asked
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    shuffled = {name: values[order] for name, values in train.items()}
    # Windows resemble each other place by place: the road is in the middle.
    places = torch.randperm(256, generator=torch.Generator().manual_seed(4))
    shuffled["cells"] = shuffled["cells"].flatten(2)[..., places].view(200, 10, 16, 16)
    found = means(Battery(shuffled, test, oracle(train), oracle(test), held_out, 0))
    for name in LINEAR + COVERAGE:
        assert -0.2 < found[name, "R²"] < 0.1, name


def test_things_are_pairs_of_different_class_near_each_other(asked):
    _, test, _ = asked
    things = VisibleThings.of(test)
    distance = (things.x[things.one] - things.x[things.other]).hypot(
        things.y[things.one] - things.y[things.other]
    )
    assert len(things.one) > 20 and distance.max() <= 16
    assert (things.clip[things.one] == things.clip[things.other]).all()
    assert (things.kind[things.one] != things.kind[things.other]).all()
    both = set(zip(things.one.tolist(), things.other.tolist(), strict=True))
    assert both == {(other, one) for one, other in both}
    # A truck is drawn above all others that move, a pedestrian below.
    trucks = things.kind[things.one] == 6
    assert (things.rank[things.one] > things.rank[things.other])[trucks].all()


def test_cells_are_the_shares_of_classes_in_squares_of_pixels():
    source = Synthetic(SyntheticConfig(labels=True, size=(36, 64)))
    batch = source.read(source.spread("test", 8, 2))
    labels, _ = look([], source, source.spread("test", 8, 2), (3, 7), lambda *_: None)
    true = batch.signals["segmentation"][:, 7]
    assert labels["cells"].shape == (2, 10, 36 // CELL, 64 // CELL)
    share = (true[1, 8:12, 20:24] == 1).float().mean()
    assert labels["cells"][1, 1, 2, 5] == pytest.approx(share.item())
    torch.testing.assert_close(labels["cells"].sum(1), torch.ones(2, 9, 16))
    between = batch.signals["actions"][:, 3:7].mean(1)
    torch.testing.assert_close(labels["actions"], between)


# A source whose truth is painted -----------------------------------------------------------------


class Lights(Source):
    """Four lamps: their brightness is the state, its change the action."""

    def __init__(self, num_train: int = 12) -> None:
        self.fps, self.size, self.skipped = 10.0, (24, 40), list[Skipped]()
        self.signals = {
            "state": Signal(role="state", size=4),
            "actions": Signal(role="action", size=4),
        }
        self.num_train = num_train

    def recordings(self, split: Split) -> list[Recording]:
        count = self.num_train if split == "train" else 5
        return [Recording(f"{split}-{i}", 4.0) for i in range(count)]

    @property
    def fingerprint(self) -> str:
        return "lights"

    def clip(self, window: Window) -> Clip:
        split, number = window.recording.name.split("-")
        chance = torch.Generator().manual_seed(int(number) + 100 * (split == "test"))
        turns = torch.rand(2, 4, generator=chance)
        seconds = torch.arange(41)[:, None] / 10
        level = 120 + 100 * (6.3 * (turns[0] + (0.1 + 0.3 * turns[1]) * seconds)).sin()
        lamps = level.round().to(torch.uint8).view(-1, 1, 2, 2)[:40]
        frames = lamps.repeat_interleave(12, 2).repeat_interleave(20, 3).expand(-1, 3, -1, -1)
        start = round(window.start_seconds * self.fps)
        signals = {"state": level[:40], "actions": level[1:] - level[:-1]}
        whole = Clip(frames.contiguous(), self.fps, signals, window.recording.name)
        return whole[start : start + window.num_frames]


class Constant(Blocks):
    def raw_posterior(self, video: Video) -> Posterior:
        return Posterior(torch.full_like(super().raw_posterior(video).mean, 0.4))


SMALL = SemanticsConfig(num_train_windows=120, num_clips=30)


def test_encoders_are_told_apart_from_end_to_end():
    encoders = {"reads": Blocks(Compression(1, 12, 20)), "sleeps": Constant()}
    semantics = measure_semantics(encoders, Lights(), SMALL)
    means = {(row.encoder, row.probe): row.value.mean or 0.0 for row in semantics.rows}
    for name in ("state", "inverse dynamics"):
        assert means["reads", name] > 0.99, name
        assert means["sleeps", name] <= 0, name
    assert means["reads", "state (likeness)"] > 0.5
    assert [e.name for e in semantics.encoders] == [
        "reads",
        "sleeps",
        "raw pixels",
        "random network",
    ]
    assert [e.reference for e in semantics.encoders] == [False, False, True, True]
    assert semantics.num_recordings == 5
    again = measure_semantics(encoders, Lights(), SMALL)
    assert again.rows == semantics.rows


def test_a_difference_is_from_raw_pixels_and_paired():
    semantics = measure_semantics({"sleeps": Constant()}, Lights(), SMALL)
    rows = {(row.encoder, row.probe): row for row in semantics.rows}
    pixels, sleeps = (rows[name, "state"] for name in ("raw pixels", "sleeps"))
    assert pixels.difference is None
    assert sleeps.difference is not None and sleeps.difference.mean is not None
    assert pixels.value.mean is not None and sleeps.value.mean is not None
    gap = sleeps.value.mean - pixels.value.mean
    assert sleeps.difference.mean == pytest.approx(gap, abs=1e-5)
    assert sleeps.difference.high is not None and sleeps.difference.high < 0


@pytest.mark.parametrize("source", [Lights(), Synthetic(SyntheticConfig())])
def test_no_recording_is_on_two_sides(source):
    windows = choose_windows(source, [1, 2, 4], SMALL)
    train, test = ([w.recording.name for w in part] for part in (windows.train, windows.test))
    held_out = {name for name, held in zip(train, windows.held_out, strict=True) if held}
    kept = {name for name, held in zip(train, windows.held_out, strict=True) if not held}
    assert held_out and kept and not held_out & kept
    assert not set(train) & set(test)


@pytest.mark.parametrize(
    ("groups", "instants"), [([1, 2, 4], (3, 7)), ([4, 8], (7, 15)), ([1, 3], (11, 23))]
)
def test_every_encoder_has_a_group_that_ends_at_an_instant(groups, instants):
    windows = choose_windows(Lights(), groups, SMALL)
    assert windows.instants == instants
    assert {w.num_frames for w in windows.train + windows.test} == {instants[1] + 1}


def test_data_that_cannot_be_asked_are_refused():
    with pytest.raises(AvenirError, match="one training recording"):
        measure_semantics({}, Lights(num_train=1), SMALL)
    silent = Lights()
    silent.signals = {}
    with pytest.raises(AvenirError, match="no signals"):
        measure_semantics({}, silent, SMALL)
    with pytest.raises(AvenirError, match="a name of its own"):
        measure_semantics({"raw pixels": Blocks()}, Lights(), SMALL)


def test_the_table_marks_what_is_surely_better_or_worse_than_raw_pixels():
    def row(encoder: str, metric: str, value: float, gap: tuple[float, float] | None):
        difference = None if gap is None else Interval(mean=sum(gap) / 2, low=gap[0], high=gap[1])
        return SemanticsRow(
            encoder=encoder,
            probe="position",
            metric=metric,
            value=Interval(mean=value, low=value - 0.1, high=value + 0.1),
            difference=difference,
        )

    asked = {"compression": (4, 8, 8), "frame_numbers": 1024, "place_numbers": 64}
    asked |= {"window_numbers": 2048, "effective_rank": 12.34}
    laid = table(
        Semantics(
            source="toy",
            fingerprint="",
            settings=SMALL,
            num_frames=8,
            instants=(3, 7),
            num_clips=30,
            num_recordings=5,
            encoders=tuple(
                AskedEncoder(name=name, reference=name != "ours", **asked)
                for name in ("ours", "raw pixels")
            ),
            rows=(
                row("ours", "R²", 0.5, (0.1, 0.3)),
                row("raw pixels", "R²", 0.3, None),
                row("ours", "px", 5.0, (0.1, 0.3)),
                row("raw pixels", "px", 4.8, None),
                row("ours", "accuracy", 0.6, (-0.1, 0.3)),
                row("raw pixels", "accuracy", 0.5, None),
            ),
            seconds=1.0,
        )
    )
    assert "| position | R² | 0.500 [0.400, 0.600] ▲ | 0.300 [0.200, 0.400] |" in laid
    assert "| position | px, lower is better | 5.00 [4.90, 5.10] ▼ | 4.80 [4.70, 4.90] |" in laid
    assert "| position | accuracy | 0.600 [0.500, 0.700] | 0.500 [0.400, 0.600] |" in laid
    assert "| numbers of a frame |  | 1,024 | 1,024 |" in laid
    assert "| directions they fill |  | 12.3 | 12.3 |" in laid


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def command():
    app = Typer()
    app.command()(probe)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.slow
def test_the_command_writes_its_table(command, tmp_path, tiny_run):
    alone = save_tiny_world(tmp_path / "alone", (64, 64), predicts=False)
    out = tmp_path / "table"
    done = command(tiny_run, alone, "data.fps=10.0", "--windows", 40, "--clips", 8, "--out", out)
    assert done.exit_code == 0, done.output
    found = Semantics.parse(json.loads((out / "semantics.json").read_text()))
    names = ["tiny", "alone", "raw pixels", "random network", "supervised"]
    assert [encoder.name for encoder in found.encoders] == names
    assert found.settings == SemanticsConfig(num_train_windows=40, num_clips=8)
    assert len({(row.probe, row.metric) for row in found.rows}) * len(names) == len(found.rows)
    assert (out / "semantics.md").read_text() == table(found)


def test_the_command_refuses_what_does_not_fit(command, tmp_path, tiny_run):
    small = save_tiny_world(tmp_path / "small", (32, 32), predicts=False)
    refused = command(tiny_run, small, "--out", tmp_path / "table")
    assert isinstance(refused.exception, AvenirError)
    assert "lives at (32, 32)" in str(refused.exception)
    assert isinstance(command("data.fps=10").exception, AvenirError)
    assert not (tmp_path / "table").exists()


def test_a_tokenizer_is_asked_as_it_is():
    torch.manual_seed(0)
    encoder = KL(KLConfig.parse({"compression": (2, 8, 8), "width": 8, "channels": 6}))
    found = measure_semantics({"kl": encoder.eval()}, Lights(), SMALL)
    asked = found.encoders[0]
    assert asked.compression == (2, 8, 8)
    assert asked.frame_numbers == 6 * 3 * 4 and asked.place_numbers == 6
