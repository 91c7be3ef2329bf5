"""LeWorldModel: the test of normality in closed form, and a collapse where it is left out."""

import math

import pytest
import torch

from avenir.clip import Batch, Progress
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.device import generator
from avenir.encoders.lewm import LeWM, LeWMConfig, VectorPredictor
from avenir.losses.distillation import gaussian

EXPECTED = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
SMALL = {"channels": 8, "patch": 16, "width": 32, "depth": 1, "heads": 2, "predictor_depth": 1}


@pytest.mark.parametrize("n", [50, 2000])
def test_normal_features_cost_the_same_whatever_their_number(n):
    costs = [
        gaussian(torch.randn(n, 5, generator=generator("normal", k)), 64, generator("along", k))
        for k in range(200)
    ]
    assert float(torch.stack(costs).mean()) == pytest.approx(EXPECTED, rel=0.06)


def test_features_that_are_all_the_same_cost_n_times_an_integral():
    """Of a point at 0 the characteristic function is 1; the integral has a closed form."""
    integral = math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    found = gaussian(torch.zeros(40, 3), 16, generator("point"))
    assert float(found) == pytest.approx(40 * integral, rel=1e-3)


def test_stretched_flat_and_moved_features_cost_more_than_normal_ones():
    normal = torch.randn(1000, 4, generator=generator("features"))
    flat = normal * torch.tensor([1.0, 1.0, 1.0, 0.0])
    for other in (3 * normal, flat, normal + 1, normal.sign()):
        assert float(gaussian(other, 256, generator("along"))) > 5 * EXPECTED


def test_what_is_predicted_depends_on_no_later_vector_or_action():
    torch.manual_seed(0)
    model = VectorPredictor(LeWMConfig.parse(SMALL | {"actions": 2})).eval()
    torch.nn.init.normal_(model.proj_out.weight)
    for block in model.transformer.blocks:
        torch.nn.init.normal_(block.modulation.project.weight, std=0.1)
    vectors, actions = torch.randn(2, 5, 8), torch.randn(2, 5, 2)
    before = model(vectors, actions)
    for changed in ("vectors", "actions"):
        parts = {"vectors": vectors.clone(), "actions": actions.clone()}
        parts[changed][:, 3] += 1
        moved = (model(**parts) - before).abs().amax((0, 2))
        assert moved[:3].max() < 1e-6 < 1e-4 < moved[3:].min()


@pytest.mark.slow
def test_without_the_normal_vectors_collapse_and_it_is_told():
    source = Synthetic(SyntheticConfig())

    def trained(weight: float) -> LeWM:
        torch.manual_seed(0)
        table = SMALL | {"actions": source.signals["actions"].size}
        model = LeWM(LeWMConfig.parse(table | {"weights": {"gaussian": weight}})).train()
        [group] = model.parameter_groups()
        optimiser = torch.optim.Adam(group.parameters, 3e-3)
        for step in range(60):
            batch = source.read(source.draw("train", 4, 16, step))
            batch = Batch(batch.video, {"actions": batch.signals["actions"]})
            progress = Progress(step, 61, generator("lewm", step))
            losses = model.losses(batch, progress)
            optimiser.zero_grad()
            torch.stack([w * losses[n] for n, w in group.weights.items()]).sum().backward()
            optimiser.step()
        return model

    full, empty = trained(0.1), trained(0.0)
    video = source.read(source.draw("train", 1, 64, 9)).video
    with torch.no_grad():
        spread = [float(model.eval().encode(video).std(0).mean()) for model in (full, empty)]
    assert spread[0] > 3 * spread[1], spread
    assert full.rank > 4, full.rank
    empty.rank = 1.5
    with pytest.warns(UserWarning, match="fill 1.5 directions of 8: they have collapsed"):
        empty.after_step(Progress(60, 61, generator("end")))
