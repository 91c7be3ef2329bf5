"""What is said of a world of text: costs against counts by hand, and a judge that knows nothing."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from avenir.data.text import Text, TextConfig
from avenir.device import seed_of
from avenir.errors import AvenirError
from avenir.evaluation.settings import EvaluationConfig
from avenir.evaluation.text import evaluate_text
from avenir.evaluation.text_report import write_text_report
from avenir.world import Card, World

SETTINGS = EvaluationConfig(num_clips=10, num_train_windows=30, num_examples=2, seed=3)
KINDS = {
    "autoregressive": {"kind": "autoregressive", "kv_heads": 1},
    "masked": {"kind": "masked"},
    "flow": {"kind": "flow", "patch": 1},
}


def made(kind: str | None, **settings) -> World:
    predictor = None
    if kind is not None:
        shape = {"width": 16, "depth": 1, "heads": 2, "past": 4, "chunk": 6}
        predictor = KINDS[kind] | shape | settings
    card = Card(fps=1.0, size=(1, 1), encoder={"kind": "text"}, predictor=predictor)
    world = World.build(card.model_copy(update={"provenance": {"key": f"{kind}{settings}"}}))
    if kind in ("autoregressive", "masked"):
        codes = world.encoder.embed(torch.arange(256)[None, :, None, None])
        world.predictor.codes.copy_(codes[0, :, :, 0, 0])
    return world.eval()


@pytest.fixture
def texts(tmp_path: Path) -> Text:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("abacabad" * (4 + number) + "xyz")
    return Text(TextConfig(path=str(tmp_path), test=("1*", "4*")))


def test_costs_without_a_world_are_those_of_counts_by_hand(texts):
    found = evaluate_text(made("autoregressive"), texts, SETTINGS).without_world
    assert found["uniform"].mean == 8
    alone, pairs, windows = Counter(range(256)), Counter(), texts.spread("test", 10, 10)
    for window in texts.draw("train", 10, 30, seed_of("frequencies", 3)):
        text = list(texts.clip(window).frames[:, 0, 0, 0].tolist())
        alone.update(text)
        pairs.update(zip(text[:-1], text[1:], strict=True))
    share = {byte: count / sum(alone.values()) for byte, count in alone.items()}
    before = Counter()
    for (byte, _), count in pairs.items():
        before[byte] += count
    unigram, bigram = [], []
    for window in windows:
        text = texts.clip(window).frames[:, 0, 0, 0].tolist()
        for last, now in zip(text[3:-1], text[4:], strict=True):
            unigram.append(-math.log2(share[now]))
            bigram.append(-math.log2((pairs[last, now] + share[now]) / (before[last] + 1)))
    assert found["unigram"].mean == pytest.approx(sum(unigram) / len(unigram), abs=1e-4)
    assert found["bigram"].mean == pytest.approx(sum(bigram) / len(bigram), abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "steps"),
    [("autoregressive", [None]), ("masked", [1, 2, 4, 6]), ("flow", [1, 2, 4, 6])],
)
def test_a_judge_that_knows_nothing_pays_eight_bits_for_every_byte(kind, steps, texts):
    world, judge = made(kind), made("autoregressive", chunk=2)
    sampling = world.predictor.config.sampling
    found = evaluate_text(world, texts, SETTINGS, judge=judge)
    assert world.predictor.config.sampling == sampling  # steps were lent, not changed
    assert (found.past, found.horizon, found.num_windows) == (4, 6, 10)
    assert [row.steps for row in found.written] == steps
    for row in (*found.written, found.truth):
        assert row.judged.mean == pytest.approx(8, abs=1e-5)
    assert (found.likelihood is None) == (kind == "flow")
    assert (found.filled is None) == (kind != "masked")


def test_what_is_counted_of_true_texts_is_counted_by_hand(texts):
    found = evaluate_text(made("autoregressive"), texts, SETTINGS)
    rows = [bytes(texts.clip(w).frames[4:, 0, 0, 0].tolist()) for w in texts.spread("test", 10, 10)]
    count = Counter(b"".join(rows))
    share = [each / sum(count.values()) for each in count.values()]
    assert found.truth.entropy == pytest.approx(-sum(p * math.log2(p) for p in share))
    runs = [row[i : i + 4] for row in rows for i in range(3)]
    assert found.truth.distinct == len(set(runs)) / len(runs)
    assert found.passages[0].true.encode() == rows[0]


def test_a_hole_is_filled_between_its_sides_and_compared_with_the_truth(texts, monkeypatch):
    world = made("masked")
    windows = texts.spread("test", 10, 10)
    codes = world.encoder.encode(texts.read(windows).video)

    def fill(before, after, condition, length, chance):
        assert (before.shape[1], length, after.shape[1]) == (4, 1, 5)
        torch.testing.assert_close(before, codes[:, :4])
        torch.testing.assert_close(after, codes[:, 5:])
        return codes[:, 4:5]

    monkeypatch.setattr(world.predictor, "fill", fill)
    filled = evaluate_text(world, texts, SETTINGS).filled
    assert (filled.length, filled.both.mean) == (1, 1.0)
    assert filled.before.mean < 1


def test_the_page_says_it_in_words_and_shows_texts_as_they_are(texts, tmp_path):
    world = made("masked")
    found = evaluate_text(world, texts, SETTINGS, "avenir evaluate it", made("autoregressive"))
    passage = found.passages[0].model_copy(update={"past": "<b>&", "made": "if a < b:"})
    found = found.model_copy(update={"passages": (passage,)})
    write_text_report(tmp_path / "report", found, "recipe = 1", {"steps": 3})
    page = (tmp_path / "report" / "report.html").read_text()
    for words in ("at most", "6 steps", "&lt;b&gt;&amp;", "if a &lt; b:", "avenir evaluate it"):
        assert words in page
    assert "Nobody judges" not in page
    assert (tmp_path / "report" / "results.json").read_text().startswith("{")


def test_who_cannot_judge_or_write_is_refused(texts):
    world = made("masked")
    with pytest.raises(AvenirError, match="to judge itself"):
        evaluate_text(world, texts, SETTINGS, judge=world)
    with pytest.raises(AvenirError, match="no chances"):
        evaluate_text(world, texts, SETTINGS, judge=made("flow"))
    with pytest.raises(AvenirError, match="no predictor"):
        evaluate_text(made(None), texts, SETTINGS)
