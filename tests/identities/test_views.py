"""Several views side by side, and frames of which parts are given: what is whose, exactly."""

import pytest
import torch

from avenir.assembly import assembled
from avenir.card import Card
from avenir.clip import Clip, Condition, Progress
from avenir.conditioners import ConditionSpec
from avenir.conditioners.cameras import CamerasConditioner, CamerasConfig
from avenir.degradation import Inpainting, draw_known, draw_tau
from avenir.device import generator
from avenir.encoders.kl import KL, KLConfig
from avenir.errors import AvenirError
from avenir.nn.attention import grid_positions
from avenir.predictors import LatentShape
from avenir.predictors.flow import Flow, FlowConfig
from avenir.rollout import inpainted
from avenir.shapes import CAMERA_NUMBERS
from avenir.signals import Signal
from avenir.world import World

SHAPE = LatentShape(channels=2, h=2, w=8, views=2)


def flow(**settings) -> Flow:
    table = {"width": 24, "depth": 2, "heads": 2, "past": 2, "chunk": 2}
    table |= {"inpainting": 1.0, "unconditional_probability": 0.5}
    return Flow(FlowConfig.parse(table | settings), SHAPE)


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Draw every weight anew: modules that start as the identity would pass any test."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model.eval()


def left(latents: torch.Tensor) -> Inpainting:
    """Give the left view of latents."""
    b, t, _, h, w = latents.shape
    return Inpainting(latents, (torch.arange(w) < w // 2).expand(b, t, h, w))


def test_each_view_is_encoded_and_decoded_as_if_it_were_alone():
    encoder = KL(KLConfig.parse({"compression": [2, 8, 8], "width": 8, "channels": 4})).eval()
    wide = torch.randn(2, 4, 3, 16, 48).clamp(-1, 1)
    alone = [encoder.encode(view) for view in wide.split(16, dim=-1)]
    decoded = [encoder.decode(latents) for latents in alone]
    encoder.views = 3
    latents = encoder.encode(wide)
    torch.testing.assert_close(latents, torch.cat(alone, dim=-1))
    torch.testing.assert_close(encoder.decode(latents), torch.cat(decoded, dim=-1))
    seam = wide.clone()
    seam[..., 16:] = 0
    assert torch.equal(encoder.encode(seam)[..., :2], latents[..., :2])


def test_columns_are_numbered_anew_in_every_view():
    assert grid_positions(1, 1, 6, views=3)[:, 2].tolist() == [0, 1, 0, 1, 0, 1]
    assert grid_positions(1, 1, 6)[:, 2].tolist() == [0, 1, 2, 3, 4, 5]


def test_what_is_said_of_a_view_is_written_into_its_tokens_alone():
    """With blocks that are still the identity a token says what was written into itself."""
    model = flow()
    torch.nn.init.normal_(model.proj_out.project.weight)
    x, level, nothing = torch.randn(1, 2, *SHAPE[:3]), torch.ones(1, 2), torch.zeros(1, 1, 24)
    views = torch.zeros(1, 2, 2, 24)

    def said(views: torch.Tensor | None) -> torch.Tensor:
        steer = Condition(nothing.expand(1, 2, 24), nothing, views)
        return model(x, level, steer, x[:, :1])

    plain = said(views)
    assert torch.equal(plain, said(None))
    views[0, 1, 1] = torch.randn(24)
    changed = (said(views) - plain).abs().sum((0, 2, 3)) > 0
    assert changed.tolist() == [[False] * 8, [False] * 4 + [True] * 4]


def test_what_is_given_stays_and_what_is_not_is_never_looked_at():
    model, latents = lively(flow()), torch.randn(2, 4, *SHAPE[:3])

    def made(latents: torch.Tensor) -> torch.Tensor:
        memory = model.start(latents[:, :0], None)
        return model.inpaint(memory, None, left(latents), generator("complete"))[0]

    one = made(latents)
    assert torch.equal(one[..., :4], latents[..., :4])
    hidden, given = latents.clone(), latents.clone()
    hidden[..., 4:] += 1
    given[:, 3, :, :, :4] += 1
    assert torch.equal(made(hidden), one)
    assert (made(given) - one)[..., 4:].abs().amax((2, 3, 4)).min() > 1e-4


def test_inpainted_frames_are_as_many_as_are_given_and_follow_their_own_past():
    model, latents = lively(flow()), torch.randn(1, 9, *SHAPE[:3])
    whole = torch.cat(list(inpainted(model, left(latents), None, generator("long"))), dim=1)
    assert whole.shape == latents.shape
    assert torch.equal(whole[..., :4], latents[..., :4])
    first, memory = model.inpaint(
        model.start(latents[:, :0], None), None, left(latents)[:4], generator("long")
    )
    assert torch.equal(whole[:, :4], first) and memory.num_frames == 2


def test_a_network_that_says_zero_pays_for_what_is_not_given_only():
    model = flow(predicts="data", loss="data")
    latents = torch.randn(64, 4, *SHAPE[:3])
    hidden = model.degrade(latents, generator("loss"))
    assert hidden.known is not None and hidden.known.any()
    places = hidden.weight[:, :, None, None] * ~hidden.known
    paid = (latents.square().mean(dim=2) * places).sum() / places.sum()
    loss = model.losses(latents, None, Progress(0, 1, generator("loss")))["flow"]
    torch.testing.assert_close(loss.detach(), paid)


def test_of_several_views_whole_ones_are_given_never_all_and_never_none():
    where = draw_known((400, 3, 2, 6), 3, 1.0, generator("views"))
    assert (where == where[:, :1, :1]).all()
    views = where[:, 0, 0].unflatten(1, (3, 2))
    assert (views[..., 0] == views[..., 1]).all()
    kinds = set(map(tuple, views[..., 0].int().tolist()))
    assert len(kinds) == 6 and (1, 1, 1) not in kinds and (0, 0, 0) not in kinds


def test_of_one_view_all_but_a_rectangle_is_given_in_a_share_of_windows():
    where = draw_known((4000, 2, 4, 5), 1, 0.3, generator("region"))
    any_given = where.flatten(1).any(1)
    # A rectangle that fills the frame gives nothing: 1/8 of rows times 2/25 of columns.
    assert float(any_given.float().mean()) == pytest.approx(0.3 * (1 - 0.125 * 0.08), abs=0.03)
    hidden = ~where[any_given][:, 0]
    rows, columns = hidden.any(2), hidden.any(1)
    assert torch.equal(hidden, rows[:, :, None] & columns[:, None, :])
    assert (rows.int().diff(dim=1, prepend=torch.zeros(len(rows), 1).int()) > 0).sum(1).max() == 1


def test_training_from_scratch_shows_no_past_in_its_share_of_windows():
    hidden = flow(unconditional_probability=0.4, full_past_probability=1.0).degrade(
        torch.randn(4000, 4, 2, 2, 8), generator("s")
    )
    num_past = (hidden.weight == 0).sum(1)
    assert set(num_past.tolist()) == {0, 2}
    assert float((num_past == 0).float().mean()) == pytest.approx(0.4, abs=0.03)


def test_a_fifth_of_bimodal_times_is_near_the_noise():
    """Logits are drawn from 0.8 N(0.5, 1.4) + 0.2 N(-3, 1), whose mean and variance are known."""
    logits = draw_tau((200_000,), "bimodal", 1.0, generator("tau")).logit()
    assert float(logits.mean()) == pytest.approx(0.8 * 0.5 - 0.2 * 3, abs=0.02)
    variance = 0.8 * (1.4**2 + 0.25) + 0.2 * (1 + 9) - 0.2**2
    assert float(logits.var()) == pytest.approx(variance, rel=0.02)


def test_parts_that_cannot_be_taken_are_refused():
    latents = torch.randn(1, 2, *SHAPE[:3])
    for untaught in (flow(inpainting=0.0), flow(unconditional_probability=0.0)):
        memory = untaught.start(latents[:, :0], None)
        with pytest.raises(
            AvenirError, match=r"inpainting and predictor\.unconditional_probability"
        ):
            untaught.inpaint(memory, None, left(latents), generator("x"))
    cut = Inpainting(latents, (torch.arange(8) < 3).expand(1, 2, 2, 8))
    with pytest.raises(AvenirError, match="cuts through tokens"):
        flow().inpaint(flow().start(latents[:, :0], None), None, cut, generator("x"))


@pytest.fixture(scope="module")
def world() -> World:
    torch.manual_seed(0)
    return World(rig(), *assembled(rig())).eval()


def rig(**changes) -> Card:
    table = {
        "fps": 10.0,
        "size": (16, 32),
        "views": 2,
        "signals": {"cameras": Signal(role="camera", size=2 * CAMERA_NUMBERS)},
        "encoder": {"kind": "kl", "compression": [2, 8, 8], "width": 8, "channels": 2},
        "conditioner": {"kind": "cameras"},
        "predictor": FlowConfig.parse(
            {"width": 24, "depth": 1, "heads": 2, "past": 2, "chunk": 2, "inpainting": 0.5}
            | {"unconditional_probability": 0.5}
        ).model_dump(),
    }
    return Card.parse(table | changes)


def clip(num_frames: int = 12) -> Clip:
    frames = torch.randint(0, 255, (num_frames, 3, 16, 32), dtype=torch.uint8)
    cameras = torch.randn(1, 2 * CAMERA_NUMBERS).expand(num_frames, -1)
    return Clip(frames, 10.0, {"cameras": cameras})


def test_a_world_imagines_a_view_from_the_others_and_never_sees_it(world):
    given = clip()
    other = Clip(given.frames.clone(), 10.0, given.signals)
    other.frames[..., 16:] = 0
    one = world.predict_views(given, [1])
    assert one.frames.shape == given.frames.shape
    assert torch.equal(one.frames, world.predict_views(other, [1]).frames)
    decoded = world.encoder.decode(world.encoder.encode(given.video))
    torch.testing.assert_close(
        one.video[..., :16], decoded[..., :16].clamp(-1, 1), atol=0.01, rtol=0
    )


@pytest.mark.parametrize("views", [[], [0, 1], [2], [-1]])
def test_views_that_there_are_not_are_refused(world, views):
    with pytest.raises(AvenirError, match="name some of them"):
        world.predict_views(clip(), views)


def test_cameras_stay_where_they_are_in_a_future(world):
    lively(world.predictor)
    given = clip()
    state = world.start(given.video, {"cameras": given.signals["cameras"][None]})
    stepped = world.step(state, None, generator("step"))
    views = stepped.memory.condition.per_view
    assert views is not None and views.abs().sum() > 0
    torch.testing.assert_close(views[:, -1], views[:, 0])


def test_a_camera_that_is_not_known_adds_nothing():
    conditioner = CamerasConditioner(
        CamerasConfig.parse({}), ConditionSpec({"cameras": 32}, 2, 16, 4)
    )
    cameras = torch.randn(1, 4, 32)
    cameras[:, :, 16:] = torch.nan
    said = conditioner({"cameras": cameras}, 2, 1).per_view
    assert (said[:, :, 0] != 0).any(-1).all() and not said[:, :, 1].any()


def test_kinds_and_sizes_that_take_one_view_only_are_refused():
    with pytest.raises(AvenirError, match="take kind 'flow'"):
        assembled(rig(conditioner=None, predictor={"kind": "joint_embedding", "width": 24}))
    with pytest.raises(AvenirError, match="whole blocks of 8"):
        assembled(rig(size=(16, 24)))


@pytest.mark.slow
def test_it_learns_to_say_a_view_from_the_other():
    """The right view is the left one with its sign turned: all that must be learnt."""
    torch.manual_seed(0)
    model = flow(unconditional_probability=0.5, predicts="data", loss="data", width=32)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)

    def drawn(count: int) -> torch.Tensor:
        half = torch.randn(count, 1, 2, 2, 4).expand(-1, 4, -1, -1, -1)
        return torch.cat([half, -half], dim=-1)

    for step in range(300):
        loss = model.losses(drawn(32), None, Progress(step, 300, generator(step)))["flow"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    true = drawn(32)
    made, _ = model.inpaint(model.start(true[:, :0], None), None, left(true), generator("draw"))
    error = (made - true)[..., 4:].square().mean().sqrt()
    assert float(error) < 0.4, float(error)
