"""What is said of a world of text: costs against counts by hand, and a judge that knows nothing."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from avenir.card import Card
from avenir.data.text import TextFolder, TextFolderConfig, learn_pieces, text_of
from avenir.device import seed_of
from avenir.errors import AvenirError
from avenir.evaluation.questions.text import evaluate_text
from avenir.evaluation.settings import EvaluationConfig
from avenir.evaluation.text_page import write_text_report
from avenir.world import World

SETTINGS = EvaluationConfig(num_clips=10, num_examples=2, seed=3)
KINDS = {
    "autoregressive": {"kind": "autoregressive", "kv_heads": 1},
    "masked": {"kind": "masked"},
    "flow": {"kind": "flow", "patch": 1},
    "joint_embedding": {"kind": "joint_embedding"},
}


def made(kind: str | None, **settings) -> World:
    predictor = None
    if kind is not None:
        shape = {"width": 16, "depth": 1, "heads": 2, "past": 4, "chunk": 6}
        if kind == "joint_embedding":
            shape["rollout"] = shape.pop("chunk")
        predictor = KINDS[kind] | shape | settings
    card = Card(fps=1.0, size=(1, 1), encoder={"kind": "text"}, predictor=predictor)
    world = World.build(card.model_copy(update={"provenance": {"key": f"{kind}{settings}"}}))
    if kind in ("autoregressive", "masked"):
        codes = world.encoder.embed(torch.arange(256)[None, :, None, None])
        world.predictor.codes.copy_(codes[0, :, :, 0, 0])
    return world.eval()


@pytest.fixture
def texts(tmp_path: Path) -> TextFolder:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("abacabad" * (4 + number) + "xyz")
    return TextFolder(TextFolderConfig(path=str(tmp_path), test=("1*", "4*")))


def windows(texts: TextFolder, past: int = 4, horizon: int = 6) -> list[bytes]:
    """Read what is held out for the settings."""
    drawn = texts.draw("test", past + horizon, 10, seed_of("held out", 3))
    return [bytes(texts.clip(window).frames[:, 0, 0, 0].tolist()) for window in drawn]


def test_costs_without_a_world_are_those_of_counts_by_hand(texts):
    found = evaluate_text(made("autoregressive"), texts, SETTINGS).without_world
    assert found["uniform"].mean == 8
    alone, pairs, before = Counter(range(256)), Counter(), Counter()
    for recording in texts.recordings("train"):
        text = (texts.root / recording.name).read_bytes()
        alone.update(text)
        before.update(text[:-1])
        pairs.update(zip(text[:-1], text[1:], strict=True))
    share = {byte: count / sum(alone.values()) for byte, count in alone.items()}
    unigram, bigram = [], []
    for text in windows(texts):
        for last, now in zip(text[3:-1], text[4:], strict=True):
            unigram.append(-math.log2(share[now]))
            bigram.append(-math.log2((pairs[last, now] + share[now]) / (before[last] + 1)))
    assert found["unigram"].mean == pytest.approx(sum(unigram) / len(unigram), abs=1e-4)
    assert found["bigram"].mean == pytest.approx(sum(bigram) / len(bigram), abs=1e-4)


def test_held_out_texts_are_not_the_beginnings_of_files(texts):
    assert len({text[0] for text in windows(texts)}) > 1


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("autoregressive", [None]),
        ("masked", [1, 2, 4, 6]),
        ("flow", [1, 2, 4, 6]),
        ("joint_embedding", [None]),
    ],
)
def test_a_judge_that_knows_nothing_pays_eight_bits_for_every_byte(kind, steps, texts):
    world, judge = made(kind), made("autoregressive", chunk=2)
    config = world.predictor.config
    found = evaluate_text(world, texts, SETTINGS, judge=judge)
    assert world.predictor.config == config  # steps were lent, not changed
    assert (found.past, found.horizon, found.num_windows) == (4, 6, 10)
    assert [row.steps for row in found.written] == steps
    for row in (*found.written, found.truth):
        assert row.judged.mean == pytest.approx(8, abs=1e-5)
    assert (found.cost is None) == (kind in ("flow", "joint_embedding"))
    assert found.bounds == (kind == "masked")
    assert (found.filled is None) == (kind != "masked")


def test_what_pieces_cost_is_shared_out_over_their_bytes(texts, tmp_path):
    pieced = TextFolder(TextFolderConfig(path=str(texts.root), test=("1*", "4*"), vocabulary=260))
    card = made("autoregressive").card
    encoder = {"kind": "text", "vocabulary": 260}
    card = card.model_copy(update={"encoder": encoder, "tokenizer": pieced.tokenizer})
    world = World.build(card).eval()
    codes = world.encoder.embed(torch.arange(260)[None, :, None, None])
    world.predictor.codes.copy_(codes[0, :, :, 0, 0])
    found = evaluate_text(world, pieced, SETTINGS)
    drawn = pieced.draw("test", 10, 10, seed_of("held out", 3))
    futures = [text_of(pieced.clip(window)[4:], pieced.tokenizer) for window in drawn]
    per_token = sum(map(len, futures)) / (10 * 6)
    assert found.bytes_per_token == pytest.approx(per_token) and per_token > 1.5
    assert found.cost.mean == pytest.approx(math.log2(260) / per_token, abs=1e-5)
    assert found.without_world["uniform"].mean == pytest.approx(math.log2(260) / per_token)
    first = found.passages[0]
    assert first.true == futures[0].decode() and first.past + first.true in "abacabad" * 12 + "xyz"
    write_text_report(tmp_path / "page", found, "", {})
    page = (tmp_path / "page" / "report.html").read_text()
    assert "4 tokens given" in page and f"A token is {per_token:.2f} bytes" in page


@pytest.mark.parametrize(("remembers", "ahead"), [(4, 6), (4, 1), (2, 3), (9, 4)])
def test_every_byte_after_the_past_is_paid_for_whatever_the_judge_sees_at_once(
    remembers, ahead, texts, monkeypatch
):
    """The judge pays a byte's number in nats, and as many again as bytes it is shown before."""
    judge = made("autoregressive", past=remembers, chunk=ahead)

    def cost(latents, condition, num_past, chance):
        paid = judge.predictor.tokens(latents)[:, num_past:, 0, 0].float()
        return paid + num_past

    monkeypatch.setattr(judge.predictor, "cost", cost)
    found = evaluate_text(made("masked"), texts, SETTINGS, judge=judge)
    sums, shown, at = sum(sum(text[4:]) for text in windows(texts)), 0, 4
    while at < 10:
        go = min(remembers + ahead - min(at, remembers), 10 - at)
        shown += 10 * go * min(at, remembers)
        at += go
    assert found.truth.judged.mean == pytest.approx((sums + shown) / 60 / math.log(2), rel=1e-5)


@pytest.mark.parametrize(("past", "horizon"), [(1, 2), (9, 15), (0.4, 0.4)])
def test_lengths_of_any_kind_are_measured_whole(past, horizon, texts):
    lengths = {"past_seconds": past, "horizon_seconds": horizon, "num_clips": 3}
    settings = SETTINGS.model_copy(update=lengths)
    judge = made("autoregressive", chunk=1)
    found = evaluate_text(made("masked"), texts, settings, judge=judge)
    assert (found.past, found.horizon) == (max(1, round(past)), max(1, round(horizon)))
    assert found.written[-1].steps == found.at_once == min(found.horizon, 10 - min(found.past, 4))
    assert found.truth.judged.mean == pytest.approx(8, abs=1e-5)


def test_what_is_counted_of_true_texts_is_counted_by_hand(texts):
    found = evaluate_text(made("autoregressive"), texts, SETTINGS)
    rows = [text[4:] for text in windows(texts)]
    count = Counter(b"".join(rows))
    share = [each / sum(count.values()) for each in count.values()]
    assert found.truth.entropy == pytest.approx(-sum(p * math.log2(p) for p in share))
    runs = [row[i : i + 4] for row in rows for i in range(3)]
    assert found.truth.distinct == len(set(runs)) / len(runs)
    assert found.passages[0].true.encode() == rows[0]


def test_a_hole_is_filled_between_its_sides_and_compared_with_the_truth(texts, monkeypatch):
    world = made("masked")
    drawn = texts.draw("test", 10, 10, seed_of("held out", 3))
    codes = world.encoder.encode(texts.read(drawn).video)

    def infill(before, after, condition, length, chance):
        assert (before.shape[1], length) == (4, 1)
        torch.testing.assert_close(before, codes[:, :4])
        torch.testing.assert_close(after, codes[:, 5:] if after.shape[1] else codes[:, :0])
        return codes[:, 4:5] if after.shape[1] else -codes[:, 4:5]

    monkeypatch.setattr(type(world.predictor), "infill", lambda _, *words: infill(*words))
    filled = evaluate_text(world, texts, SETTINGS).filled
    assert (filled.length, filled.both.mean, filled.before.mean) == (1, 1.0, 0.0)


def test_the_page_says_it_in_words_and_shows_texts_as_they_are(texts, tmp_path):
    world = made("masked")
    found = evaluate_text(world, texts, SETTINGS, "avenir evaluate it", made("autoregressive"))
    passage = found.passages[0].model_copy(update={"past": "<b>&", "made": "if a < b:"})
    found = found.model_copy(update={"passages": (passage,)})
    write_text_report(tmp_path / "report", found, "recipe = 1", {"steps": 3})
    page = (tmp_path / "report" / "report.html").read_text()
    for words in ("at most", "6 steps", "&lt;b&gt;&amp;", "if a &lt; b:", "avenir evaluate it"):
        assert words in page
    assert "No judge" not in page
    assert (tmp_path / "report" / "results.json").read_text().startswith("{")


def test_who_cannot_judge_or_write_is_refused(texts):
    world = made("masked")
    with pytest.raises(AvenirError, match="to judge itself"):
        evaluate_text(world, texts, SETTINGS, judge=world)
    with pytest.raises(AvenirError, match="no chances"):
        evaluate_text(world, texts, SETTINGS, judge=made("flow"))
    with pytest.raises(AvenirError, match="no predictor"):
        evaluate_text(made(None), texts, SETTINGS)
    knows = made("autoregressive")
    [first, *_] = texts.draw("test", 10, 10, seed_of("held out", 3))
    knows.card.provenance["recordings"] = [first.recording.identity, "another"]
    with pytest.raises(AvenirError, match="learnt from 1 of the held-out texts"):
        evaluate_text(world, texts, SETTINGS, judge=knows)
    texts.tokenizer = learn_pieces([b"abcabc"], 258)
    with pytest.raises(AvenirError, match="world of 256 tokens and the data gives others, 258"):
        evaluate_text(world, texts, SETTINGS)
