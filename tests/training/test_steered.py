"""What is to steer a world is heard, or training says so before its first step."""

from dataclasses import replace

import pytest
import torch

from avenir.data.synthetic import Synthetic
from avenir.errors import AvenirError
from avenir.training.loop import make_objective
from avenir.training.objectives import PredictorObjective, make_source
from avenir.training.recipe import load_recipe

WORDS = [
    "data.weather=true",
    "predictor.depth=1",
    "predictor.width=16",
    "tokenizer.encoder.width=8",
]


def prepared(monkeypatch, capsys, lose, **change) -> str:
    """Fit the conditioner of a recipe to actions of which some are lost; return what is said."""
    read = Synthetic.read

    def lossy(source, windows):
        batch = read(source, windows)
        return replace(batch, signals=batch.signals | {"actions": lose(batch.signals["actions"])})

    monkeypatch.setattr(Synthetic, "read", lossy)
    recipe = load_recipe("recipes/quickstart.toml", WORDS).model_copy(update=change)
    encoder, source = recipe.parents["tokenizer"], make_source(recipe.data)
    task = make_objective(recipe, source, {"tokenizer": make_objective(encoder, source, {}).world})
    assert isinstance(task, PredictorObjective)
    task._fit_conditioner()
    said = " ".join(capsys.readouterr().err.split())
    conditioner = task.world.conditioner
    if conditioner is not None:
        told = torch.zeros(2, 4, 2)
        told[1, :, 0] = 1
        one, other = conditioner({"actions": told}, 2, 2).per_frame
        assert not torch.allclose(one, other)  # by what is known it is steered
    return said


def test_actions_that_are_all_known_are_not_worth_a_word(monkeypatch, capsys):
    assert prepared(monkeypatch, capsys, lambda rows: rows) == ""


def test_a_number_that_is_never_known_is_named_and_the_rest_steers(monkeypatch, capsys):
    lose = lambda rows: torch.cat([rows[..., :1], rows[..., 1:] * torch.nan], -1)  # noqa: E731
    said = prepared(monkeypatch, capsys, lose)
    assert said.startswith("actions: ") and "is NaN in all training windows" in said
    assert said.count(",") == 1


def halves(rows: torch.Tensor) -> torch.Tensor:
    """Lose one number in each row, now this and now that."""
    rows = rows.clone()
    rows[..., ::2, 0] = rows[..., 1::2, 1] = torch.nan
    return rows


JOINT = {"kind": "joint", "parts": {"actions": {}, "metadata": {"signals": ["weather"]}}}


@pytest.mark.parametrize("lose", [lambda rows: rows * torch.nan, halves])
@pytest.mark.parametrize("conditioner", [{"kind": "actions"}, JOINT], ids=["alone", "with others"])
def test_a_world_that_actions_would_not_steer_is_not_trained(
    monkeypatch, capsys, lose, conditioner
):
    with pytest.raises(AvenirError, match="conditioner 'actions' would steer nothing: in 64 wind"):
        prepared(monkeypatch, capsys, lose, conditioner=conditioner)


def test_actions_that_a_recipe_does_not_hear_are_said(monkeypatch, capsys):
    said = prepared(monkeypatch, capsys, lambda rows: rows, conditioner=None)
    assert said == "the data has actions, and this recipe no conditioner that hears them"
