"""Every conditioner keeps the contract."""

import pytest
import torch

from avenir.assembly import make_conditioner
from avenir.clip import Condition
from avenir.conditioners import Conditioner, ConditionSpec
from avenir.device import generator
from avenir.registry import find, kinds
from avenir.shapes import BOX_NUMBERS, CAMERA_NUMBERS

SIZES = {"actions": 3, "boxes": 12, "caption": 8, "cameras": 32, "weather": 4, "speed.own": 1}
CHANNELS = 5
NUM_THINGS = SIZES["boxes"] // BOX_NUMBERS + 1
"""That boxes give to look at."""
METADATA = {"signals": ["weather", "speed.own"]}
SETTINGS = {
    "joint": {
        "parts": {"actions": {}, "boxes": {}, "text": {}, "cameras": {}, "metadata": METADATA}
    },
    "metadata": METADATA,
}


@pytest.fixture(params=kinds("conditioners"))
def conditioner(request, tmp_path) -> Conditioner:
    kind, settings = request.param, SETTINGS.get(request.param, {})
    if kind == "text_encoder":
        pytest.importorskip("transformers")
        from ..test_text_encoder import save_tiny

        settings = {"model": str(save_tiny(tmp_path)), "length": NUM_THINGS}
    spec = ConditionSpec(SIZES, 2, 16, CHANNELS)
    return make_conditioner({"kind": kind, **settings}, spec)


def signals(conditioner: Conditioner, count: int = 4) -> dict[str, torch.Tensor]:
    every = {
        "actions": torch.randn(count, 6, SIZES["actions"]),
        "boxes": torch.rand(count, 6, SIZES["boxes"]).ceil(),
        "caption": torch.randint(1, 256, (count, 6, SIZES["caption"])).float(),
        "cameras": torch.randn(count, 6, SIZES["cameras"]),
        "weather": torch.eye(4)[torch.randint(4, (count, 6))],
        "speed.own": 5 * torch.randn(count, 6, 1),
    }
    return {name: every[name] for name in conditioner.needs(conditioner.config)}


def told(condition: Condition) -> torch.Tensor:
    """Lay side by side what is said of frames, of their views, and for them to look at, `b t n`."""
    lead, views, context = condition.per_frame.shape[:2], condition.per_view, condition.context
    if views is None:
        views = torch.zeros(*lead, SIZES["cameras"] // CAMERA_NUMBERS, 16)
    things = torch.zeros(*lead, NUM_THINGS, 16)
    if context is not None:
        things = context.tokens * context.known[..., None]
    return torch.cat([condition.per_frame, views.flatten(2), things.flatten(2)], dim=-1)


def latents(count: int) -> torch.Tensor:
    return torch.randn(count, 3, CHANNELS, 4, 4, generator=generator("latents"))


def test_one_vector_per_latent_frame(conditioner):
    condition = conditioner(signals(conditioner), 3, 4)
    assert condition.per_frame.shape == (4, 3, 16)
    assert condition.num_frames == 3


def test_nothing_known_is_absent(conditioner):
    condition = conditioner({}, 3, 4)
    torch.testing.assert_close(told(condition), told(condition.unconditional()))


def test_training_drops_some_and_use_drops_none(conditioner):
    conditioner.fit([{n: s[0] for n, s in signals(conditioner).items()}])
    many = signals(conditioner, 500)
    used = conditioner(many, 3, 500, latents=latents(500))
    absent = (told(used) - told(used.unconditional())).abs().amax((1, 2)) < 1e-6
    assert not absent.any()
    dropped = conditioner(many, 3, 500, generator("dropout"), latents(500))
    absent = (told(dropped) - told(dropped.unconditional())).abs().amax((1, 2)) < 1e-6
    assert 0.02 < float(absent.float().mean()) < 0.3


def test_statistics_make_the_scale_of_signals_irrelevant(conditioner):
    given = signals(conditioner)
    conditioner.fit([{n: s.flatten(0, 1) for n, s in given.items()}])
    before = conditioner(given, 3, 4).per_frame
    scaled = {n: 100 * s + 7 if n in ("actions", "speed.own") else s for n, s in given.items()}
    conditioner.fit([{n: s.flatten(0, 1) for n, s in scaled.items()}])
    torch.testing.assert_close(conditioner(scaled, 3, 4).per_frame, before, atol=1e-4, rtol=1e-4)


def test_rows_that_nobody_knows_do_not_make_it_deaf(conditioner):
    given = signals(conditioner)
    rows = {n: s.flatten(0, 1) for n, s in given.items() if n != "caption"}
    conditioner.fit([rows])
    before = told(conditioner(given, 3, 4))
    unknown = {n: torch.cat([s, torch.full_like(s[:2], torch.nan)]) for n, s in rows.items()}
    conditioner.fit([unknown])
    torch.testing.assert_close(told(conditioner(given, 3, 4)), before)


def test_a_number_that_is_never_known_takes_nothing_from_the_others(conditioner):
    given = signals(conditioner)
    lost = {n: s for n, s in given.items() if n in ("actions", "weather", "cameras")}
    if not lost:
        pytest.skip("reads whole words, or each number by itself")
    for rows in lost.values():
        rows[..., ::CAMERA_NUMBERS] = torch.nan
    conditioner.fit([{n: s.flatten(0, 1) for n, s in given.items()}])
    heard, silent = told(conditioner(given, 3, 4)), told(conditioner({}, 3, 4))
    assert not torch.allclose(heard, silent)
    for name in lost:  # what the others say is heard, and is all that is
        other = {n: s.clone() for n, s in given.items()}
        other[name][..., 1] += 1
        assert not torch.allclose(told(conditioner(other, 3, 4)), heard)
        there = {n: s.clone() for n, s in given.items()}
        there[name][..., ::CAMERA_NUMBERS] = 5
        assert torch.equal(told(conditioner(there, 3, 4)), heard)
    kept = conditioner.state_dict()
    assert all(value.isfinite().all() for value in kept.values())


def test_statistics_of_what_is_known_throughout_are_mean_and_deviation():
    kind = find("conditioners", "actions")
    actions = kind(kind.Config(), ConditionSpec({"actions": 3}, 2, 16, CHANNELS))
    rows = torch.randn(50, 3, generator=generator("rows"))
    rows[:, 2] = 4  # never changes
    actions.fit([{"actions": rows}])
    assert torch.equal(actions.mean, rows.mean(0))
    assert torch.equal(actions.std, torch.cat([rows[:, :2].std(0), torch.ones(1)]))
    halves = rows.clone()
    halves[:25, 0] = halves[25:, 1] = torch.nan  # there is no row that is whole
    actions.fit([{"actions": halves}])
    assert torch.equal(actions.mean, rows.mean(0))


def test_its_weights_are_known_without_memory(conditioner):
    with torch.device("meta"):
        described = make_conditioner(
            conditioner.config.model_dump(), ConditionSpec(SIZES, 2, 16, CHANNELS)
        )
    shapes = [
        {n: v.shape for n, v in each.state_dict().items()} for each in (described, conditioner)
    ]
    assert shapes[0] == shapes[1]
    assert {parameter.device.type for parameter in described.parameters()} <= {"meta"}
