"""Text is learnt by the same training as video: one token after the other, or masked."""

import pytest

from avenir.cli.evaluate import evaluate
from avenir.cli.predict import predict
from avenir.data.text import clip_of, text_of
from avenir.errors import AvenirError
from avenir.training.loop import train
from avenir.training.recipe import load_recipe
from avenir.world import World

ENCODER = 'task = "encoder"\n[data]\nkind = "text"\n[encoder]\nkind = "text"\n'
PREDICTOR = """
task = "predictor"
tokenizer = "bytes.toml"
[data]
kind = "text"
[predictor]
kind = "KIND"
width = 48
depth = 2
past = 6
chunk = 6
SETTINGS
[predictor.sampling]
temperature = 0.0
[train]
steps = 150
batch_size = 16
num_samples = 0
ema = 0.9
optim.weight_decay = 0.0
"""
SETTINGS = {"autoregressive": "", "masked": 'hide = "uniform"\nfull_past_probability = 1.0'}


@pytest.mark.parametrize("kind", sorted(SETTINGS))
def test_a_refrain_is_learnt_and_continued(kind, tmp_path, capsys):
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("la di da " * (20 + number))
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "bytes.toml").write_text(ENCODER)
    text = PREDICTOR.replace("KIND", kind).replace("SETTINGS", SETTINGS[kind])
    (recipes / "world.toml").write_text(text)
    recipe = load_recipe(recipes / "world.toml", [f"data={tmp_path}", 'data.files="*.txt"'])
    run = train(recipe, tmp_path / "runs")
    said = World.load(run, "cpu").predict(clip_of(b"a di da la"), seconds=16.0)
    assert text_of(said) == b" di da la di da "
    (tmp_path / "start.md").write_text("a di da la")
    predict(run, tmp_path / "start.md", seconds=16.0, out=tmp_path / "more.md")
    assert (tmp_path / "more.md").read_text() == "a di da la di da la di da "
    assert capsys.readouterr().out == " di da la di da \n"
    evaluate(run, clips=4)
    assert "What bytes cost" in (run / "evaluation" / "report.html").read_text()
    (tmp_path / "hole.md").write_text("a di da la ____a la di")
    if kind == "masked":
        predict(run, tmp_path / "hole.md", fill="____", out=tmp_path / "full.md")
        assert (tmp_path / "full.md").read_text() == "a di da la di da la di"
        with pytest.raises(AvenirError, match="no such hole"):
            predict(run, tmp_path / "hole.md", fill="::", out=tmp_path / "full.md")
        (tmp_path / "hole.md").write_text("la di" + 30 * "_" + "la")
        with pytest.raises(AvenirError, match="make it smaller"):
            predict(run, tmp_path / "hole.md", fill=30 * "_", out=tmp_path / "full.md")
    else:
        with pytest.raises(AvenirError, match="kind 'masked'"):
            predict(run, tmp_path / "hole.md", fill="____", out=tmp_path / "full.md")
    with pytest.raises(AvenirError, match="cannot be read: No such file"):
        predict(run, tmp_path / "nothing.md", out=tmp_path / "more.md")


def test_a_world_of_pieces_carries_what_they_stand_for(tmp_path, capsys):
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("la di da " * (20 + number))
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "bytes.toml").write_text(ENCODER + "vocabulary = 259\n")
    text = PREDICTOR.replace("KIND", "masked").replace("SETTINGS", SETTINGS["masked"])
    (recipes / "world.toml").write_text(text)
    words = [f"data={tmp_path}", 'data.files="*.txt"', "data.vocabulary=259"]
    run = train(load_recipe(recipes / "world.toml", words), tmp_path / "runs")
    for number in range(3):  # nothing but the run is needed
        (tmp_path / f"{number}.txt").unlink()
    (tmp_path / "start.md").write_text("a di da la")
    predict(run, tmp_path / "start.md", seconds=9.0, out=tmp_path / "more.md")
    more = (tmp_path / "more.md").read_text()
    assert more.startswith("a di da la di da la di") and len(more) > 10 + 9
    (tmp_path / "hole.md").write_text("a di da la ____a la di")
    predict(run, tmp_path / "hole.md", fill="____", out=tmp_path / "full.md")
    assert capsys.readouterr().out.strip()
