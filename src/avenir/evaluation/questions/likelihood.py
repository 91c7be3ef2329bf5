"""What held-out tokens cost a predictor: bits per token and, to compare vocabularies, per pixel.

A predictor of tokens gives every future a chance; minus its logarithm is what the future costs to
write down given the past. Costs per token depend on how much a token says; per pixel (per byte of
text) they do not. Masked prediction bounds the cost from above, in the mean over what is hidden.
"""

import math

import torch

from avenir.config import Config
from avenir.console import Report
from avenir.device import generator
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.evaluation.metrics.likelihood import bits_per_frame
from avenir.evaluation.question import About, Measured, Question, QuestionInputs
from avenir.evaluation.report.html import section
from avenir.evaluation.report.tables import count, facts_list, with_bounds
from avenir.predictors import TokenPredictor
from avenir.world import World


class Likelihood(Config):
    """What futures of held-out windows cost, with 95 % intervals over recordings."""

    bound: bool
    """Whether it is an upper bound."""
    num_windows: int
    """Held-out windows."""
    num_past: int
    """Latent frames that are given."""
    num_frames: int
    """Latent frames that are paid for."""
    bits_per_token: Interval
    """Of a code."""
    bits_per_pixel: Interval
    """Of a pixel of a frame, or of a byte of text."""
    vocabulary_bits: float
    """What a token costs when every code is as likely: the logarithm of the vocabulary."""


@torch.no_grad()
def measure_likelihood(world: World, held_out: HeldOut, report: Report) -> Likelihood | None:
    """Ask what the futures of windows cost, as much as is predicted at once; none of numbers.

    Given are the last observed frames, as many as the predictor remembers.
    """
    predictor = world.predictor
    if not isinstance(predictor, TokenPredictor):
        return None
    encoder, f_t = world.encoder, world.encoder.compression.t
    device, observed = encoder.latent_mean.device, held_out.past // f_t
    shown = torch.zeros(1, observed, *predictor.codes.shape[1:], 1, 1, device=device)
    num_past = predictor.start(shown, None).num_frames
    ahead = min(held_out.horizon // f_t, predictor.num_train_frames - num_past)
    used = slice(observed - num_past, observed + ahead)
    costs, places = [], 1
    for start, batch in held_out.batches("what tokens cost", report):
        assert batch.video is not None
        latents = encoder.encode(batch.video.to(device))[:, used]
        places = latents.shape[-2] * latents.shape[-1]
        condition = None
        if world.conditioner is not None:
            signals = {name: value.to(device) for name, value in held_out.steering(batch).items()}
            condition = world.conditioner(signals, used.stop, len(latents))[used]
        rng = generator("likelihood", held_out.seed, start, device=device)
        costs.append(bits_per_frame(predictor, latents, condition, num_past, rng).cpu())
    bits = torch.cat(costs)
    pixels = f_t * held_out.source.size[0] * held_out.source.size[1]
    return Likelihood(
        bound=predictor.bounds,
        num_windows=len(bits),
        num_past=num_past,
        num_frames=ahead,
        bits_per_token=interval(bits / places, held_out.groups, held_out.seed),
        bits_per_pixel=interval(bits / pixels, held_out.groups, held_out.seed),
        vocabulary_bits=math.log2(len(predictor.codes)),
    )


class LikelihoodQuestion(Question):
    """What held-out tokens cost."""

    Answer = Likelihood
    order = 30

    def applies(self, asked: QuestionInputs) -> bool:
        """Ask predictors of tokens."""
        return isinstance(asked.world.predictor, TokenPredictor)

    def measure(self, asked: QuestionInputs) -> Measured | None:
        """Measure what the futures of windows cost."""
        found = measure_likelihood(asked.world, asked.held_out, asked.report)
        return None if found is None else Measured(found)

    def section(self, measured: Measured, about: About) -> str:
        """List the costs."""
        assert isinstance(measured.answer, Likelihood)
        return section(
            "cost",
            "What tokens cost",
            "How many bits the true future costs to write down, given the past, with the "
            "probabilities that the predictor gives it. Costs of a pixel compare between "
            "vocabularies.",
            f'<div class="card">{likelihood_facts(measured.answer)}</div>',
        )


def likelihood_facts(likelihood: Likelihood) -> str:
    """List what held-out tokens cost."""
    most = "at most " if likelihood.bound else ""
    facts = {
        "A token": f"{most}{with_bounds(likelihood.bits_per_token, 3)} bits of "
        f"{likelihood.vocabulary_bits:.2f}",
        "A pixel": f"{most}{with_bounds(likelihood.bits_per_pixel, 4)} bits",
        "Measured on": f"{count(likelihood.num_frames, 'latent frame')} of "
        f"{likelihood.num_windows:,} windows, {likelihood.num_past} before them given",
    }
    return facts_list(facts)
