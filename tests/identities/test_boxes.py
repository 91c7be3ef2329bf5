"""Boxes, from the simulator to the tokens that look at them: what is told, and what is not."""

import pytest
import torch

from avenir.assembly import assembled
from avenir.card import Card
from avenir.clip import Condition, Context
from avenir.conditioners import ConditionSpec
from avenir.conditioners.boxes import BoxesConditioner, BoxesConfig
from avenir.data import synthetic
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.data.synthetic.rig import camera
from avenir.data.synthetic.things import BODIES, MOVING, NUM_SLOTS
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.nn.attention import CrossAttention
from avenir.predictors import LatentShape
from avenir.predictors.flow import Flow, FlowConfig
from avenir.shapes import BOX_NUMBERS
from avenir.signals import Signal

SHAPE = LatentShape(channels=2, h=2, w=4, context=True)
NONE = float("nan")


def flow(**settings) -> Flow:
    table = {
        "width": 24,
        "depth": 2,
        "heads": 2,
        "past": 2,
        "chunk": 2,
        "unconditional_probability": 0.5,
    }
    model = Flow(FlowConfig.parse(table | settings), SHAPE)
    with torch.no_grad():  # modules that start as the identity would pass any test
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=generator("lively"))
    return model.eval()


def boxes(num_boxes: int = 3, f_t: int = 1, **settings) -> BoxesConditioner:
    torch.manual_seed(0)
    sizes = {"boxes": num_boxes * BOX_NUMBERS}
    return BoxesConditioner(BoxesConfig.parse(settings), ConditionSpec(sizes, f_t, 24, 2))


def looking(frames: int, m: int = 3) -> Condition:
    chance = generator("looking", m)
    tokens = torch.randn(2, frames, m, 24, generator=chance)
    known = torch.rand(2, frames, m, generator=chance) < 0.7
    middle, half = torch.rand(2, 2, frames, m, 2, generator=chance)
    context = Context(tokens, known, torch.cat([middle - half, middle + half], dim=-1))
    nothing = torch.zeros(1, 1, 24)
    return Condition(nothing.expand(2, frames, 24), nothing, context=context)


# What the simulator says ----------------------------------------------------------------------


def told(cameras: int | None = None, size: tuple[int, int] = (64, 64)):
    table = {"boxes": True, "cameras": cameras, "labels": cameras is None, "size": size}
    source = Synthetic(SyntheticConfig.parse({n: v for n, v in table.items() if v is not None}))
    batch = source.read(source.spread("test", 3, 12))
    rows = batch.signals["boxes"].double().unflatten(-1, (-1, NUM_SLOTS, BOX_NUMBERS))
    return source, batch, rows


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64)])
def test_a_box_holds_just_the_pixels_of_its_thing(size):
    """Of things of which all shows, with no other near."""
    _, batch, rows = told(size=size)
    height, width = size
    labels, codes = batch.signals["objects"], batch.signals["segmentation"]
    checked = 0
    for clip, frame, slot in (rows[:, :, 0, :, 5] > 0).nonzero().tolist():
        x, y, w, h, depth, category = rows[clip, frame, 0, slot].tolist()
        kind = BODIES[slot]
        assert category == 1 + MOVING.index(kind) and depth == pytest.approx(1)
        edges = [
            (x - w / 2) * width,
            (x + w / 2) * width,
            (y - h / 2) * height,
            (y + h / 2) * height,
        ]
        left, right, top, bottom = edges
        inside = left > 2 and top > 2 and right < width - 2 and bottom < height - 2
        far = (labels[clip, frame, :, :2] - labels[clip, frame, slot, :2]).norm(dim=-1)
        alone = (far < 16).sum() == 1  # or else pixels of its class are another's
        if not (inside and alone) or labels[clip, frame, slot, 3] < 1:
            continue
        first_row, first_column = int(top) - 1, int(left) - 1
        own = codes[clip, frame, first_row : int(bottom) + 2, first_column : int(right) + 2] == kind
        rows_of, columns_of = own.any(1).nonzero()[:, 0], own.any(0).nonzero()[:, 0]
        drawn = [
            first_column + int(columns_of.min()),
            first_column + int(columns_of.max()) + 1,
            first_row + int(rows_of.min()),
            first_row + int(rows_of.max()) + 1,
        ]
        # Things are drawn at every half pixel.
        assert all(abs(edge - other) <= 1.5 for edge, other in zip(edges, drawn, strict=True))
        checked += 1
    assert checked > 10


def test_what_shows_has_a_box_and_what_is_not_there_has_zeros():
    _, batch, rows = told()
    visible = batch.signals["objects"][..., 3]
    assert (rows[:, :, 0][visible > 0][:, 5] > 0).all()
    absent = batch.signals["objects"][..., 2] == 0
    assert not rows[:, :, 0][absent].any()
    assert not rows[rows[..., 5] == 0].any()


def test_boxes_of_a_rig_stay_in_their_view():
    source, _, rows = told(cameras=3)
    there, view = rows[..., 5] > 0, torch.arange(3)[:, None]
    left, right = (rows[..., 0] + side * rows[..., 2] / 2 for side in (-1, 1))
    within = (left >= view / 3 - 1e-6) & (right <= (view + 1) / 3 + 1e-6)
    assert within[there].all() and there.any(0).any(0).any(1).all()
    assert source.signals["boxes"].size == 3 * NUM_SLOTS * BOX_NUMBERS


def test_a_camera_that_looks_straight_down_moves_and_enlarges_boxes(monkeypatch):
    """From half as high it sees a quarter of the picture, here one to the right and up."""
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    aims, zero = torch.tensor([[0.1, 0.05], [0.0, 0.0]], dtype=torch.float64), 0 * half
    rig = camera(aims, half, zero, zero, 2 * half)
    monkeypatch.setattr(synthetic, "draw_rig", lambda *_: rig)
    _, _, rows = told(cameras=2)
    _, _, above = told(size=(128, 128))  # painted as finely as what the cameras look at
    x, y, w, h, _, _ = above[:, :, 0].unbind(-1)
    seen_x, seen_y = (x - 0.6) / 0.5 + 0.5, (y - 0.45) / 0.5 + 0.5
    inside = (w > 0) & (seen_x - w > 0) & (seen_x + w < 1) & (seen_y - h > 0) & (seen_y + h < 1)
    expected = torch.stack([seen_x / 2, seen_y, 2 * w / 2, 2 * h, 0.5 + 0 * x], dim=-1)
    assert inside.sum() > 10
    torch.testing.assert_close(rows[:, :, 0, :, :5][inside], expected[inside], atol=1e-6, rtol=0)


def test_boxes_change_no_picture_and_the_name_of_no_other_data():
    source, batch, _ = told()
    plain = Synthetic(SyntheticConfig())
    assert torch.equal(plain.read(plain.spread("test", 3, 12)).video, batch.video)
    assert plain.fingerprint != source.fingerprint
    assert plain.fingerprint.startswith("308345fedd75")


# What the conditioner makes of it -------------------------------------------------------------


def test_the_order_of_boxes_does_not_matter():
    steer, model = boxes(), flow()
    rows = torch.rand(2, 4, 3, BOX_NUMBERS)
    rows[..., 5] = torch.tensor([1.0, 2.0, 4.0])
    x, level = torch.randn(2, 4, 2, 2, 4), torch.rand(2, 4)
    said = [
        model(x, level, steer({"boxes": order.flatten(2)}, 4, 2), x[:, :1])
        for order in (rows, rows[:, :, [2, 0, 1]])
    ]
    torch.testing.assert_close(*said)
    moved = rows.clone()
    moved[:, 2, 1, 0] += 0.1
    change = model(x, level, steer({"boxes": moved.flatten(2)}, 4, 2), x[:, :1]) - said[0]
    assert change.abs().amax((0, 2, 3, 4)).min() > 1e-4  # attention carries it to every frame


def test_no_box_is_another_thing_than_no_word_of_boxes():
    steer = boxes()
    none_there = steer({"boxes": torch.zeros(1, 2, 18)}, 2, 1).context
    unsaid = steer({}, 2, 1).context
    assert none_there is not None and unsaid is not None
    assert none_there.known.tolist() == [[[False] * 3 + [True]] * 2]
    assert not unsaid.known.any()


def test_who_leaves_out_a_box_has_not_said_that_these_are_all():
    rows = torch.rand(1, 1, 3, BOX_NUMBERS)
    rows[..., 5] = torch.tensor([1.0, 0.0, 2.0])
    steer = boxes()

    def known(rows: torch.Tensor) -> list[bool]:
        context = steer({"boxes": rows.flatten(2)}, 1, 1).context
        assert context is not None and context.tokens.isfinite().all()
        return context.known[0, 0].tolist()

    assert known(rows) == [True, False, True, True]
    some = rows.clone()
    some[0, 0, 2] = NONE
    assert known(some) == [True, False, False, False]
    vague = rows.clone()
    vague[0, 0, 2, 2:] = NONE  # of a thing of which only the place is known
    assert known(vague) == [True, False, True, True]


def test_numbers_that_are_infinite_are_not_known():
    rows = torch.rand(1, 1, 3, BOX_NUMBERS)
    rows[..., 5] = 1
    rows[0, 0, 0, 2], rows[0, 0, 1, 0], rows[0, 0, 2, 4] = torch.inf, -torch.inf, torch.inf
    context = boxes()({"boxes": rows.flatten(2)}, 1, 1).context
    assert context is not None and context.tokens.isfinite().all()
    assert context.known.tolist() == [[[True, False, True, False]]]


def test_a_latent_frame_is_told_the_boxes_of_its_last_frame():
    steer, rows = boxes(f_t=2), torch.rand(1, 4, 18)
    first = steer({"boxes": rows}, 2, 1).context
    rows[:, [0, 2]] = torch.rand(1, 2, 18)
    again = steer({"boxes": rows}, 2, 1).context
    assert first is not None and again is not None
    assert torch.equal(first.tokens, again.tokens)


def test_depths_in_any_unit_are_the_same():
    rows = torch.rand(20, 3, BOX_NUMBERS) + 0.5
    steer, metres = boxes(), rows * torch.tensor([1, 1, 1, 1, 40.0, 1])
    steer.fit([{"boxes": rows.flatten(1)}])
    one = steer({"boxes": rows[:1].flatten(1)[None]}, 1, 1).context
    steer.fit([{"boxes": metres.flatten(1)}])
    other = steer({"boxes": metres[:1].flatten(1)[None]}, 1, 1).context
    assert one is not None and other is not None
    torch.testing.assert_close(one.tokens, other.tokens)


def test_training_leaves_out_frames_boxes_and_numbers_as_often_as_it_says():
    rows = torch.rand(4000, 2, 3, BOX_NUMBERS) + 0.1
    rows[..., 5] = 1
    off = {"dropout": 0, "part_dropout": 0, "box_dropout": 0, "feature_dropout": 0}

    def told(rows: torch.Tensor, **settings) -> Context:
        steer = boxes(**off | settings)
        context = steer({"boxes": rows.flatten(2)}, 2, 4000, generator("drop")).context
        assert context is not None
        return context

    def known(**settings) -> torch.Tensor:
        return told(rows, **settings).known

    assert known().all()
    places = rows.clone()
    places[..., 2:] = NONE
    blind, plain = told(places), told(rows)
    assert known(feature_dropout=1).all()
    assert torch.equal(told(rows, feature_dropout=1).tokens, blind.tokens)
    # Nothing is left out of a box whose four other numbers all stay: 0.7⁴ of them.
    whole = (told(rows, feature_dropout=0.3).tokens == plain.tokens).all(-1)[..., :3]
    assert float(whole.float().mean()) == pytest.approx(0.7**4, abs=0.02)
    halves = known(part_dropout=0.5).all(-1)
    assert float((~halves).any(1).float().mean()) == pytest.approx(0.25, abs=0.15)
    assert (halves.any(1) | ~halves.any(1)).all() and not halves.all()
    windows = known(dropout=0.25).flatten(1)
    assert (windows.all(1) | ~windows.any(1)).all()
    assert float(windows.any(1).float().mean()) == pytest.approx(0.75, abs=0.03)
    some = known(box_dropout=0.4)
    assert torch.equal(some[:, 0], some[:, 1])
    assert torch.equal(some[..., 3], some[..., :3].all(-1))
    # Each of three is left out with a chance drawn from 0 to 1: none of them in a quarter.
    assert float(some[:, 0, 3].float().mean()) == pytest.approx(1 - 0.4 * 0.75, abs=0.03)


# How tokens look at it ------------------------------------------------------------------------


def test_where_nothing_is_known_nothing_is_seen_whatever_the_tokens_hold():
    attention = CrossAttention(24, 2)
    x, things = torch.randn(3, 5, 24), torch.randn(3, 4, 24)
    assert not attention(x, things, torch.zeros(3, 5, 4, dtype=torch.bool)).any()
    known = torch.tensor([True, False, True, False])
    seen = attention(x, things, known.expand(3, 5, 4))
    torch.testing.assert_close(
        attention(x, things[:, ::2], torch.ones(3, 5, 2, dtype=torch.bool)), seen
    )
    other = torch.where(known[:, None], things, torch.randn(3, 4, 24))
    assert torch.equal(attention(x, other, known.expand(3, 5, 4)), seen)


def test_attention_is_the_softmax_that_may_look_at_nothing():
    attention = CrossAttention(24, 1)
    x, things = torch.randn(1, 5, 24), torch.randn(1, 4, 24)
    key, value = attention.key_value(things).chunk(2, dim=-1)

    def normed(rows: torch.Tensor) -> torch.Tensor:
        return rows / rows.square().mean(-1, keepdim=True).sqrt()

    scores = (normed(attention.query(x)) @ normed(key).mT / 24**0.5).exp()
    expected = attention.out(scores @ value / (1 + scores.sum(-1, keepdim=True)))
    seen = attention(x, things, torch.ones(1, 5, 4, dtype=torch.bool))
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-4)


def test_each_token_sees_what_reaches_it():
    edges = torch.tensor(
        [
            [0.0, 0.0, 1.0, 1.0],  # everything
            [0.3, 0.1, 0.45, 0.4],  # inside one place
            [0.6, 0.2, 0.9, 0.7],  # over two rows and two columns
            [0.5, 0.5, 0.75, 1.0],  # edges where places meet: no more than it covers
            [-0.5, -0.5, -0.1, 2.0],  # beside the frame
        ]
    )
    context = Context(
        torch.zeros(1, 1, 5, 24), torch.ones(1, 1, 5, dtype=torch.bool), edges[None, None]
    )
    seen = context.seen((2, 4))[0, 0].T.reshape(5, 2, 4).int().tolist()
    assert seen == [
        [[1, 1, 1, 1], [1, 1, 1, 1]],
        [[0, 1, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 1, 1], [0, 0, 1, 1]],
        [[0, 0, 0, 0], [0, 0, 1, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0]],
    ]
    unknown = Context(context.tokens, ~context.known, context.reach)
    assert not unknown.seen((2, 4)).any()


def test_a_box_is_seen_where_it_is_and_the_rest_from_everywhere():
    rows = torch.zeros(1, 1, 2, BOX_NUMBERS)
    rows[0, 0, 0] = torch.tensor([0.75, 0.5, 0.2, 0.5, 1.0, 1.0])
    context = boxes(2)({"boxes": rows.flatten(2)}, 1, 1).context
    assert context is not None
    torch.testing.assert_close(context.reach[0, 0, 0], torch.tensor([0.65, 0.25, 0.85, 0.75]))
    assert context.reach[0, 0, 2].tolist() == [0, 0, 1, 1]
    rows[0, 0, 0, 2:4] = NONE  # of unknown size: where its middle is
    context = boxes(2)({"boxes": rows.flatten(2)}, 1, 1).context
    assert context is not None
    seen = context.seen((2, 4))[0, 0, :, 0].reshape(2, 4).int().tolist()
    assert seen == [[0, 0, 1, 1], [0, 0, 1, 1]]  # on the corner of four places


def test_a_box_is_seen_wherever_it_was_within_a_latent_frame():
    rows = torch.zeros(1, 4, 2, BOX_NUMBERS)
    rows[0, :, 0] = torch.tensor([0.0, 0.5, 0.1, 0.2, 1.0, 1.0])
    rows[0, :, 0, 0] = torch.tensor([0.1, 0.4, 0.6, 0.9])
    rows[0, 1:, 1], rows[0, 1:, 1, 5] = 0.25, 2  # it comes in the second frame
    context = boxes(2, f_t=2)({"boxes": rows.flatten(2)}, 2, 1).context
    assert context is not None
    torch.testing.assert_close(
        context.reach[0, :, 0, ::2], torch.tensor([[0.05, 0.45], [0.55, 0.95]])
    )
    torch.testing.assert_close(context.reach[0, 0, 1], torch.tensor([0.125, 0.125, 0.375, 0.375]))


def test_a_box_at_the_edge_of_a_view_is_not_seen_by_the_next():
    source, _, rows = told(cameras=2)
    steer = boxes(2 * NUM_SLOTS)
    context = steer({"boxes": rows.float().flatten(2)}, 3, 12).context
    assert context is not None and source.views == 2
    seen = context.seen((4, 8)).unflatten(2, (4, 2, 4))[..., :-1]
    for view in range(2):
        others = seen[:, :, :, 1 - view, :, view * NUM_SLOTS : (view + 1) * NUM_SLOTS]
        assert not others.any()


def test_one_block_without_attention_changes_only_where_the_box_is():
    """With attention of tokens to each other off, what a box says stays within its reach."""
    model = flow(depth=1)
    with torch.no_grad():
        model.transformer.blocks[0].time.out.weight.zero_()
    x, level = torch.randn(1, 2, 2, 2, 4), torch.rand(1, 2)
    tokens, known = torch.randn(1, 2, 1, 24), torch.ones(1, 2, 1, dtype=torch.bool)
    nothing = torch.zeros(1, 1, 24)
    reach = torch.tensor([0.1, 0.1, 0.4, 0.9]).expand(1, 2, 1, 4)
    steer = Condition(nothing.expand(1, 2, 24), nothing, context=Context(tokens, known, reach))
    change = (
        model(x, level, steer, x[:, :1]) - model(x, level, steer.unconditional(), x[:, :1])
    ).abs()
    assert change[..., :2].amax((0, 1, 2, 3)).min() > 1e-5 and not change[..., 2:].any()


@pytest.mark.parametrize("attention", ["full", "factorised"])
def test_a_remembered_past_is_the_past_with_what_it_looked_at(attention):
    model, steer = flow(attention=attention), looking(4)
    x, seen = torch.randn(2, 4, 2, 2, 4), torch.randn(2, 1, 2, 2, 4)
    level = torch.tensor([[1.0, 1.0, 0.3, 0.3]]).expand(2, 4)
    look = torch.ones(4, 4, dtype=torch.bool).tril()
    look[:2, :2] = look[2:, 2:] = True
    whole = model(x, level, steer, seen, attention_mask=look.expand(2, 4, 4))[:, 2:]
    cache = model.remember(x[:, :2], level[:, :2], steer[:2], seen)
    torch.testing.assert_close(
        model(x[:, 2:], level[:, 2:], steer[2:], seen, cache=cache), whole, atol=1e-5, rtol=1e-4
    )


def test_unknown_things_are_no_things():
    model, steer = flow(), looking(4)
    x, level = torch.randn(2, 4, 2, 2, 4), torch.rand(2, 4)

    def said(steer: Condition) -> torch.Tensor:
        return model(x, level, steer, x[:, :1])

    assert (said(steer) - said(steer.unconditional())).abs().max() > 1e-4
    gone = steer.drop(torch.tensor([True, False]))
    torch.testing.assert_close(said(gone)[0], said(steer.unconditional())[0])
    torch.testing.assert_close(said(gone)[1], said(steer)[1])


def test_things_of_several_kinds_are_all_looked_at_and_forgotten_apart():
    parts = {"boxes": looking(4), "words": looking(4, m=5)}
    both = Condition.together(parts)
    assert both.context is not None and both.context.tokens.shape[2] == 8
    rest = both.unconditional("words")
    assert rest.context is not None and parts["boxes"].context is not None
    assert torch.equal(rest.context.tokens, parts["boxes"].context.tokens)
    joined = both[:1].then(both[1:])
    assert joined.context is not None
    assert torch.equal(joined.context.tokens, both.context.tokens)
    assert torch.equal(joined.context.known, both.context.known)
    assert torch.equal(joined.context.reach, both.context.reach)
    twice = both.repeated(2).rows(2)
    assert twice.context is not None
    assert torch.equal(twice.context.known[1], both.context.known[0])


def test_only_predictors_that_look_take_what_is_to_be_looked_at():
    def card(**predictor) -> Card:
        return Card.model_validate(
            {
                "name": "boxes",
                "encoder": {"kind": "fsq", "compression": [1, 8, 8], "width": 8},
                "predictor": {"width": 24, "depth": 1, "heads": 2, **predictor},
                "conditioner": {"kind": "boxes"},
                "signals": {"boxes": Signal(role="box", size=12)},
                "fps": 10.0,
                "size": (16, 32),
            }
        )

    roles = assembled(card(kind="flow"))
    assert isinstance(roles.predictor, Flow)
    assert roles.predictor.transformer.blocks[0].things is not None
    with pytest.raises(AvenirError, match=r"conditioner 'boxes'.*predictor.kind='flow'"):
        assembled(card(kind="masked"))
