"""Self-distillation: balanced targets, spread, and relations against their definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from avenir.losses.distillation import agreement, centred, gram, koleo, sinkhorn


def test_balanced_targets_are_distributions_that_use_every_prototype_equally():
    targets = sinkhorn(torch.randn(512, 16), 0.5, num_iterations=50)
    torch.testing.assert_close(targets.sum(1), torch.ones(512), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.sum(0), torch.full((16,), 32.0), atol=1e-2, rtol=0)


def test_balanced_targets_are_the_scaling_of_the_exponential():
    """Sinkhorn-Knopp gives diag(u)·exp(scores / temperature)·diag(v) (1306.0895)."""
    scores = torch.randn(6, 4, dtype=torch.float64)
    targets = sinkhorn(scores, 0.3, num_iterations=500)
    scaling = targets.log() - scores / 0.3
    spread = scaling - scaling.mean(0) - scaling.mean(1, keepdim=True) + scaling.mean()
    assert spread.abs().max() < 1e-9


def test_targets_cannot_collapse_when_all_scores_are_alike():
    targets = sinkhorn(torch.tensor([[5.0, 0.0, 0.0, 0.0]]).repeat(8, 1), 0.05)
    torch.testing.assert_close(targets, torch.full((8, 4), 0.25))


def test_centred_targets_favour_what_is_said_more_than_on_average():
    scores = torch.tensor([[2.0, 1.0, 0.0], [2.0, 0.0, 1.0]], dtype=torch.float64)
    targets = centred(scores, scores.mean(0), 0.5)
    expected = torch.tensor([[0.0, 1.0, -1.0], [0.0, -1.0, 1.0]], dtype=torch.float64).exp()
    torch.testing.assert_close(targets, expected / expected.sum(1, keepdim=True))


def test_agreement_is_least_where_the_student_says_what_the_teacher_says():
    targets = torch.softmax(torch.randn(5, 7, dtype=torch.float64), dim=-1)
    entropy = -(targets * targets.log()).sum(-1).mean()
    assert float(agreement(0.1 * targets.log(), targets, 0.1)) == pytest.approx(float(entropy))
    assert float(agreement(torch.zeros_like(targets), targets, 0.1)) == pytest.approx(math.log(7))


def test_koleo_is_minus_the_mean_log_distance_to_the_nearest():
    features = torch.randn(9, 4, dtype=torch.float64)
    unit = (features / features.norm(dim=1, keepdim=True)).numpy()
    distances = cdist(unit, unit) + np.diag(np.full(9, np.inf))
    expected = -np.log(distances.min(1)).mean()
    assert float(koleo(features)) == pytest.approx(expected, abs=1e-9)


def test_gram_asks_for_relations_and_not_for_features():
    features = torch.randn(3, 5, 4, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    assert float(gram(features, 3 * features @ turn)) == pytest.approx(0, abs=1e-12)
    other = torch.randn(3, 5, 4, dtype=torch.float64)
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (features, other))
    expected = torch.stack([(a[i] @ a[i].T - b[i] @ b[i].T).square() for i in range(3)]).mean()
    assert float(gram(features, other)) == pytest.approx(float(expected), abs=1e-12)
