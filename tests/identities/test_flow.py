"""The flow predictor's objectives: their value where it has a closed form, and what they learn."""

import math
from dataclasses import replace

import pytest
import torch

from avenir.clip import Progress
from avenir.degradation import Path, before_each
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.predictors import LatentShape
from avenir.predictors.flow import Flow, FlowConfig

SHAPE = LatentShape(channels=2, h=4, w=4)


def flow(**settings) -> Flow:
    table = {"width": 32, "depth": 2, "heads": 2, "past": 2, "chunk": 2, **settings}
    return Flow(FlowConfig.parse(table), SHAPE)


@pytest.mark.parametrize(
    ("path", "target", "expected"),
    [
        ("flow", "velocity", 2.0),
        ("flow", "data", 1.0),
        ("flow", "noise", 1.0),
        ("diffusion", "velocity", (math.pi / 2) ** 2),
    ],
)
def test_a_network_that_says_zero_has_the_variance_of_its_target_as_loss(path, target, expected):
    model = flow(path=path, predicts=target, loss=target, past_noise=0.0)
    latents = torch.randn(200, 4, *SHAPE[:3])
    loss = model.losses(latents, None, Progress(0, 1, generator("zero")))["flow"]
    assert float(loss.detach()) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    "settings",
    [
        {"diffusion_forcing_probability": 1.0},
        {"full_past_probability": 1.0},
        {"full_past_probability": 0.0},
    ],
)
def test_settings_of_one_degradation(settings):
    model = flow(past=3, **settings)
    hidden = model.degrade(torch.randn(100, 5, *SHAPE[:3]), generator("hide"))
    num_past = (hidden.weight == 0).sum(1)
    if settings.get("diffusion_forcing_probability"):
        assert num_past.max() == 0
        assert (hidden.level.std(dim=1) > 0).all()
        assert (hidden.attention_mask == torch.ones(5, 5).tril().bool()).all()
    else:
        assert set(num_past.tolist()) == ({3} if settings["full_past_probability"] else {1, 2, 3})
        future = hidden.weight.bool()
        assert (hidden.level[~future] >= 0.9).all()
        spread = torch.where(future, hidden.level, hidden.level[:, -1:]) - hidden.level[:, -1:]
        assert spread.abs().max() == 0


def said(model: Flow, ask) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return what the network is shown while something is asked: frames, levels, and its answer."""
    calls, forward = [], model.forward

    def spied(x, level, *args, **settings):
        calls.append((x, level, forward(x, level, *args, **settings)))
        return calls[-1][-1]

    model.forward = spied
    with torch.no_grad():
        ask()
    model.forward = forward
    return calls


def scrambled(**settings) -> Flow:
    torch.manual_seed(0)
    model = flow(**settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("attention", ["full", "factorised"])
@pytest.mark.parametrize("changed", [0, 2, 4])
def test_what_is_learnt_of_a_forced_frame_depends_on_no_later_one(attention, changed):
    model = scrambled(past=3, diffusion_forcing_probability=1.0, attention=attention)
    latents = torch.randn(2, 5, *SHAPE[:3])
    other = latents.clone()
    other[:, changed] += 1

    def learnt(latents: torch.Tensor) -> torch.Tensor:
        progress = Progress(0, 1, generator("order"))
        return said(model, lambda: model.losses(latents, None, progress))[0][-1]

    moved = (learnt(other) - learnt(latents)).abs().amax((0, 2, 3, 4))
    assert (moved[:changed] == 0).all() and (moved[changed:] > 1e-3).all(), moved


@pytest.mark.parametrize("path", ["flow", "diffusion"])
@pytest.mark.parametrize("attention", ["full", "factorised"])
@pytest.mark.parametrize(
    "settings",
    [{"diffusion_forcing_probability": 1.0}, {"diffusion_forcing_probability": 0.5}, {}],
    ids=str,
)
def test_what_is_predicted_of_a_frame_is_what_is_learnt_of_it(
    settings, attention, path, monkeypatch
):
    """Of the same frames at the same levels, whether the past is computed along or kept."""
    sampling = {"num_steps": 3, "past_noise": 0.2}
    model = scrambled(past=3, sampling=sampling, attention=attention, path=path, **settings)
    memory = model.start(torch.randn(2, 3, *SHAPE[:3]), None)
    past = model._noised_past(memory.latents, generator("draw"))
    predicted = said(model, lambda: model.predict(memory, None, 2, generator("draw")))
    assert len(predicted) == 3

    def learnt(window: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Mix latents to this very window by the noise that will be drawn, and learn from it."""
        noise, rates = torch.randn(window.shape, generator=generator("n")), model.path.rates(levels)
        share, rest = (each[:, :, None, None, None] for each in (rates.signal, rates.noise))
        full = 0 if settings else 2
        hidden = replace(model.degrade(window, generator("hide"), full=full), level=levels)
        latents, progress = (window - rest * noise) / share, Progress(0, 1, generator("n"))
        with monkeypatch.context() as patch:
            patch.setattr(model, "degrade", lambda *_, **__: hidden)
            [(same, _, answer)] = said(model, lambda: model.losses(latents, None, progress))
        torch.testing.assert_close(same, window, atol=1e-5, rtol=0)
        return answer

    for x, level, answer in predicted[1:]:
        levels = torch.cat([torch.full((2, 3), 0.8), level], dim=1)
        again = learnt(torch.cat([past, x], dim=1), levels)[:, 3:]
        torch.testing.assert_close(again, answer, atol=1e-4, rtol=1e-4)


def test_the_frame_before_is_shown_as_far_as_its_noise_lets_it_be_seen():
    """The best linear guess, found by regression; nothing of noise alone, and all of data."""
    data, noise = torch.randn(2, 40_000, 1, 1, 1, 1, generator=generator("before"))
    for kind in ("flow", "diffusion"):
        path = Path(kind)
        for tau in (0.0, 0.3, 0.8, 1.0):
            x = path.mix(data, noise, torch.tensor(tau)).expand(-1, 2, -1, -1, -1)
            shown = before_each(path, x, torch.full((40_000, 2), tau))
            assert (shown[:, 0] == 0).all()
            slope = (x[:, 0] * data[:, 0]).mean() / x[:, 0].square().mean()
            torch.testing.assert_close(shown[:, 1], slope * x[:, 0], atol=0.06, rtol=0)
            if tau == 1:
                torch.testing.assert_close(shown[:, 1], data[:, 0])


def moving(count: int, length: int, chance: torch.Generator) -> torch.Tensor:
    """Waves of variance 1 that run to either side, three quarters of a column a frame."""
    phase = 8 * torch.rand(count, 1, 1, generator=chance)
    speed = 1.5 * torch.randint(2, (count, 1, 1), generator=chance) - 0.75
    where = torch.arange(8) - phase - speed * torch.arange(length)[:, None]
    wave = math.sqrt(2) * torch.sin(2 * math.pi / 8 * where)
    return wave[:, :, None, None, :].expand(-1, -1, 1, 2, 8)


@pytest.mark.slow
@pytest.mark.parametrize("forcing", [1.0, 0.5])
def test_a_forced_predictor_says_more_of_the_next_frames_than_the_last_one_does(forcing):
    """Where things move: after a past that is known, in the order in which frames were learnt."""
    torch.manual_seed(0)
    table = {
        "width": 32,
        "depth": 2,
        "heads": 2,
        "past": 3,
        "chunk": 2,
        "diffusion_forcing_probability": forcing,
    }
    model = Flow(FlowConfig.parse(table), LatentShape(1, 2, 8))
    optimiser, steps = torch.optim.Adam(model.parameters(), 3e-3), 300
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1.0, 2.5 * (1 - step / steps))
        latents = moving(32, 5, generator("moving", step))
        loss = model.losses(latents, None, Progress(step, steps, generator(step)))["flow"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    latents = moving(64, 5, generator("test"))
    made, _ = model.predict(model.start(latents[:, :3], None), None, 2, generator("draw"))
    off, held = (
        (guess - latents[:, 3:]).square().mean((0, 2, 3, 4)) for guess in (made, latents[:, 2:3])
    )
    assert (off < 0.6 * held).all(), (off, held)


def test_with_its_own_past_the_last_true_frame_of_it_is_never_seen():
    """From the middle of training on; what it learns to say stays the true future."""
    latents = torch.randn(3, 5, *SHAPE[:3])
    other, future = latents.clone(), latents.clone()
    other[:, 2] += 1
    future[:, 3] += 1
    model = flow(past=3, self_forcing=1.0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    def loss(latents: torch.Tensor, step: int) -> torch.Tensor:
        return model.losses(latents, None, Progress(step, 10, generator("own")))["flow"]

    assert torch.equal(loss(latents, 5), loss(other, 5))
    assert not torch.isclose(loss(latents, 5), loss(future, 5))
    assert not torch.isclose(loss(latents, 4), loss(other, 4))


def test_its_own_past_is_what_it_predicts_of_the_frames_before():
    model = flow(past=3, self_forcing=0.5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    latents = torch.randn(4, 5, *SHAPE[:3])
    mixed = model._with_own_past(latents, None, 2, generator("own"))
    made, _ = model.predict(model.start(latents[:2, :2], None), None, 1, generator("own"))
    assert torch.equal(mixed[:2, 2:3], made)
    mixed[:2, 2] = latents[:2, 2]
    assert torch.equal(mixed, latents)


def test_a_past_of_one_frame_has_nothing_to_be_made_of():
    with pytest.raises(AvenirError, match="remember 2 or more"):
        flow(past=1, self_forcing=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "predicts", "sampler"),
    [
        ("flow", "velocity", "euler"),
        ("flow", "data", "heun"),
        ("diffusion", "velocity", "ddim"),
        ("diffusion", "noise", "ddpm"),
        ("diffusion", "data", "ddim"),
    ],
)
def test_every_target_learns_that_the_future_repeats_the_past(path, predicts, sampler):
    """Still pictures of random shade: what is drawn must have the shade of what was seen."""
    sampling = {"sampler": sampler, "num_steps": 20}
    model = flow(path=path, predicts=predicts, loss=predicts, sampling=sampling, past_noise=0.0)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(200):
        latents = torch.randn(32, 1, 1, 1, 1).expand(32, 4, *SHAPE[:3])
        loss = model.losses(latents, None, Progress(step, 200, generator(step)))["flow"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    past = torch.linspace(-1.5, 1.5, 16).view(16, 1, 1, 1, 1).expand(16, 2, *SHAPE[:3])
    drawn, _ = model.predict(model.start(past, None), None, 2, generator("draw"))
    error = (drawn - past[:, :1]).square().mean().sqrt()
    assert float(error) < 0.35, float(error)


def test_prediction_needs_no_more_than_the_path():
    """One Euler step from pure noise is the network's guess of the data, by the path alone."""
    model = flow(predicts="data", sampling={"num_steps": 1})
    with torch.no_grad():
        model.proj_out.project.bias.fill_(0.3)
    drawn, _ = model.predict(
        model.start(torch.randn(1, 2, *SHAPE[:3]), None), None, 1, generator("one")
    )
    torch.testing.assert_close(drawn, torch.full_like(drawn, 0.3), atol=1e-5, rtol=0)


def test_a_network_whose_steps_agree_pays_nothing_and_one_whose_do_not_pays_their_distance():
    """Velocity zero takes one step as far as two; data zero does not, and how far is arithmetic."""
    latents, progress = torch.randn(64, 4, *SHAPE[:3]), Progress(0, 1, generator("shortcut"))
    still = flow(shortcut=1.0, past_noise=0.0)
    assert float(still.losses(latents, None, progress)["shortcut"].detach()) < 1e-12
    # Saying that the data are c, step by step, leads on a line toward c, whatever the steps.
    straight = flow(shortcut=1.0, past_noise=0.0, predicts="data", loss="data")
    with torch.no_grad():
        straight.proj_out.project.bias.fill_(0.3)
    assert float(straight.losses(latents, None, progress)["shortcut"].detach()) < 1e-6
    # Saying that the noise is c: v = (x - c) / tau grows along the step, so one step falls short.
    bent = flow(shortcut=1.0, past_noise=0.0, predicts="noise", loss="data")
    assert float(bent.losses(latents, None, progress)["shortcut"].detach()) > 1e-3


def test_without_it_nothing_is_told_of_strides_and_nothing_more_is_drawn():
    plain = flow()
    latents = torch.randn(3, 4, *SHAPE[:3])
    assert plain.stride is None and set(
        plain.losses(latents, None, Progress(0, 1, generator("plain")))
    ) == {"flow"}
    with pytest.raises(AvenirError, match="along a straight path"):
        flow(shortcut=0.5, path="diffusion")


@pytest.mark.parametrize(("num_steps", "told"), [(1, True), (8, True), (3, False), (16, False)])
def test_strides_are_told_in_the_numbers_of_steps_that_were_learnt(num_steps, told):
    model = flow(shortcut=0.5, sampling={"num_steps": num_steps})
    torch.nn.init.normal_(model.proj_out.project.weight)
    torch.nn.init.normal_(model.proj_out.modulation.weight)
    memory = model.start(torch.randn(2, 1, *SHAPE[:3]), None)

    def drawn():
        return model.predict(memory, None, 1, generator("strides"))[0]

    before = drawn()
    # These multiply sines, and the sine of no stride is nothing.
    model.stride.weight.data[:, model.width // 2 :] += 1
    assert torch.equal(drawn(), before) != told


@pytest.mark.slow
def test_one_step_does_when_long_ones_were_learnt():
    """Futures are one of two shades: one step of the flow lands between, a long one does not."""

    def off(shortcut: float) -> float:
        torch.manual_seed(0)
        table = {"width": 32, "depth": 2, "heads": 2, "past": 1, "chunk": 1, "past_noise": 0.0}
        table |= {"shortcut": shortcut, "full_past_probability": 1.0, "sampling": {"num_steps": 1}}
        model = Flow(FlowConfig.parse(table), LatentShape(1, 2, 2))
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for step in range(300):
            side = 2.0 * torch.randint(2, (64, 1, 1, 1, 1), generator=generator("side", step)) - 1
            latents = side.expand(-1, 2, 1, 2, 2).clone()
            latents[:, :1] = 0
            losses = model.losses(latents, None, Progress(step, 300, generator(step)))
            optimiser.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimiser.step()
        past = torch.zeros(400, 1, 1, 2, 2)
        made, _ = model.predict(model.start(past, None), None, 1, generator("draw"))
        return float((made.mean((1, 2, 3, 4)).abs() - 1).square().mean().sqrt())

    assert off(0.5) < 0.5 * off(0.0)
