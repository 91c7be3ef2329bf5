"""Flow and diffusion are one process; every target converts to every other."""

import pytest
import torch

from avenir.degradation import Mixed, Path, draw_tau, hide_future, shift_of, shifted
from avenir.device import SharedGenerator, generator
from avenir.samplers import ddim, ddpm, euler, heun, schedule

TARGETS = ("data", "velocity", "noise")
SHAPE = (2, 3, 4, 2, 2)


def ends() -> Mixed:
    return Mixed(torch.randn(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_true_prediction_of_any_kind_gives_back_both_ends(kind, target):
    path, true = Path(kind), ends()
    tau = torch.tensor(0.37, dtype=torch.float64)
    x = path.mix(true.data, true.noise, tau)
    solved = path.ends(target, path.target(target, true, tau), x, tau)
    torch.testing.assert_close(solved.data, true.data)
    torch.testing.assert_close(solved.noise, true.noise)


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_velocity_is_the_derivative_of_the_path(kind):
    path, true = Path(kind), ends()
    tau = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.functional.jacobian(lambda at: path.mix(true.data, true.noise, at), tau)
    torch.testing.assert_close(slope, path.velocity(true, tau))


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_zero_is_noise_and_one_is_data(kind):
    path, true = Path(kind), ends()
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(path.mix(true.data, true.noise, zero), true.noise)
    torch.testing.assert_close(path.mix(true.data, true.noise, one), true.data)


def wiener(path: Path):
    """The best guess of both ends when data are N(0, 4): exact, so samplers can be judged alone."""

    def denoise(x, tau, after):
        r = path.rates(tau)
        gain = 4 * r.signal / (4 * r.signal**2 + r.noise**2)
        data = gain * x
        noise = (r.noise / (4 * r.signal**2 + r.noise**2)) * x
        return Mixed(data, noise)

    return denoise


def test_diffusion_in_flow_coordinates_is_flow():
    """Divided by signal + noise, the circle is the line at tau = signal/(signal + noise)."""
    flow, diffusion = Path("flow"), Path("diffusion")
    start = torch.randn(100, dtype=torch.float64)
    angles = schedule(20, "linear")
    rates = [diffusion.rates(torch.tensor(a, dtype=torch.float64)) for a in angles]
    straight = [float(r.signal / (r.signal + r.noise)) for r in rates]
    there = ddim(wiener(diffusion), diffusion, start, angles)
    here = euler(wiener(flow), flow, start, straight)
    torch.testing.assert_close(there, here)


def test_euler_on_a_line_is_ddim():
    path, start = Path("flow"), torch.randn(50, dtype=torch.float64)
    taus = schedule(7, "linear_quadratic")
    torch.testing.assert_close(
        euler(wiener(path), path, start, taus), ddim(wiener(path), path, start, taus)
    )


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
@pytest.mark.parametrize(("loop", "order"), [(euler, 1), (heun, 2)])
def test_samplers_reach_the_closed_form_at_their_order(kind, loop, order):
    """With data N(0, 4) the flow of the ODE is x(1) = 2·x(0); halving steps divides the error."""
    path, start = Path(kind), torch.ones(1, dtype=torch.float64)
    errors = [
        float((loop(wiener(path), path, start, schedule(n, "linear")) - 2 * start).abs())
        for n in (160, 320)
    ]
    assert errors[1] < 0.01
    assert errors[0] / errors[1] > 2**order * 0.8


def test_ddpm_draws_from_the_data():
    path, start = Path("diffusion"), torch.randn(40_000, dtype=torch.float64)
    drawn = ddpm(wiener(path), path, start, schedule(100, "linear"), generator("ddpm"))
    assert abs(float(drawn.std()) - 2) < 0.05
    assert abs(float(torch.corrcoef(torch.stack([start, drawn]))[0, 1])) < 0.05


def test_ddpm_under_common_chance_draws_the_same_from_the_same():
    path, start = Path("diffusion"), torch.randn(1, 9).expand(4, 9)
    taus, seed = schedule(5, "linear"), generator("seed")
    drawn = ddpm(wiener(path), path, start, taus, SharedGenerator.drawn_by(seed))
    alone = generator("seed")
    alone.manual_seed(SharedGenerator.drawn_by(alone).initial_seed())
    torch.testing.assert_close(drawn, ddpm(wiener(path), path, start[:1], taus, alone).expand(4, 9))


@pytest.mark.parametrize("kind", ["linear", "linear_quadratic"])
@pytest.mark.parametrize("num_steps", [1, 2, 9, 10])
def test_schedules_run_from_noise_to_data(kind, num_steps):
    taus = schedule(num_steps, kind, shift=1.7)
    assert len(taus) == num_steps + 1
    assert taus[0] == 0
    assert taus[-1] == pytest.approx(1)
    assert all(a < b for a, b in zip(taus[:-1], taus[1:], strict=True))


@pytest.mark.parametrize("num_steps", [2, 3, 10, 25, 50, 51])
def test_a_line_goes_over_into_a_parabola_without_a_kink(num_steps):
    """Equal steps to 0.1, then steps that grow by equal amounts, the first by half as much."""
    taus = torch.tensor(schedule(num_steps, "linear_quadratic"), dtype=torch.float64)
    half, steps = num_steps // 2, taus.diff()
    torch.testing.assert_close(steps[:half], torch.full((half,), 0.1 / half).double())
    assert float(taus[-1]) == pytest.approx(1, abs=1e-12)
    grows = steps[half - 1 :].diff()
    bend = (1 - 0.1 / half * num_steps) / (num_steps - half) ** 2
    assert float(grows[0]) == pytest.approx(bend) and (grows > 0).all()
    torch.testing.assert_close(grows[1:], torch.full_like(grows[1:], 2 * bend))


def test_shift_spends_more_time_near_noise_and_grows_with_the_latent():
    tau = torch.linspace(0, 1, 11)
    assert (shifted(tau, 2.0)[1:-1] < tau[1:-1]).all()
    torch.testing.assert_close(shifted(shifted(tau, 2.0), 0.5), tau)
    assert shift_of(64 * 64) == 1
    assert shift_of(256 * 64) == 2


def test_logit_normal_has_its_median_at_the_shifted_half():
    tau = draw_tau((20_000,), "logit_normal", 3.0, generator("tau"))
    assert float(tau.median()) == pytest.approx(0.25, abs=0.01)


def test_the_past_is_given_and_never_looks_ahead():
    tau = torch.full((2, 5), 0.3)
    hidden = hide_future(tau, torch.tensor([2, 0]), torch.tensor([1.0, 0.9]))
    assert hidden.level[0].tolist() == pytest.approx([1, 1, 0.3, 0.3, 0.3])
    assert hidden.level[1].tolist() == pytest.approx([0.3] * 5)
    assert hidden.weight.tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert hidden.attention_mask[0, :2].tolist() == [[True, True, False, False, False]] * 2
    assert hidden.attention_mask[0, 2:].all()
    assert hidden.attention_mask[1].all()
