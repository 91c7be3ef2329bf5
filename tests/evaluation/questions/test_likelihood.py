"""What tokens cost, where it is known beforehand."""

import math

import pytest
import torch

from avenir.card import Card
from avenir.console import silent
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.questions.likelihood import measure_likelihood
from avenir.world import World

ENCODER = {"kind": "fsq", "levels": [5, 4], "compression": [2, 8, 8], "width": 8, "depth": 1}
PREDICTORS = {
    "autoregressive": {"past": 3, "chunk": 1},
    "masked": {"past": 3, "chunk": 1, "heads": 2},
    "flow": {"past": 3, "chunk": 1, "heads": 2, "patch": 1},
}


@pytest.mark.parametrize("kind", PREDICTORS)
def test_where_every_code_is_as_likely_a_token_costs_the_logarithm_of_the_vocabulary(kind):
    source = Synthetic(SyntheticConfig(size=(16, 24), episode_frames=20))
    predictor = {"kind": kind, "width": 16, "depth": 1} | PREDICTORS[kind]
    steered = {"conditioner": {"kind": "actions"}, "predictor": predictor}
    encoder = ENCODER | {"decoder_depth": 1}
    card = Card(fps=10.0, size=(16, 24), signals=source.signals, encoder=encoder, **steered)
    world = World.build(card).eval()
    task = HeldOut(source, source.spread("test", 20, 12), 12, 8, 1, 5, 0)
    if kind == "flow":
        assert measure_likelihood(world, task, silent) is None
        return
    codes = world.encoder.embed(torch.arange(20)[None, :, None, None])
    world.predictor.codes.copy_(codes[0, :, :, 0, 0])
    found = measure_likelihood(world, task, silent)
    assert found.vocabulary_bits == pytest.approx(math.log2(20))
    assert (found.num_past, found.num_frames, found.bound) == (3, 1, kind == "masked")
    # Six tokens stand for two frames of 16×24 pixels.
    close = {"rel": 0.15} if found.bound else {"abs": 1e-5}
    assert found.bits_per_token.mean == pytest.approx(math.log2(20), **close)
    assert found.bits_per_pixel.mean == pytest.approx(
        found.bits_per_token.mean * 6 / (2 * 16 * 24), abs=1e-5
    )
