"""A question is one file: found by its name, asked, and told on the page."""

import json
import sys
from pathlib import Path

import pytest

from avenir.errors import AvenirError
from avenir.evaluation import Evaluation, EvaluationConfig, evaluate
from avenir.evaluation.question import find_question, find_questions
from avenir.registry import kinds

MINE = '''
"""How long are the clips?"""

from avenir.config import Config
from avenir.evaluation.question import Measured, Question
from avenir.evaluation.report.findings import Finding
from avenir.evaluation.report.html import section


class Length(Config):
    """How long clips are."""

    frames: int
    """Of each."""


class LengthQuestion(Question):
    """How long clips are."""

    Answer = Length

    def measure(self, asked):
        return Measured(Length(frames=asked.held_out.past + asked.held_out.horizon))

    def findings(self, answer, about):
        return [Finding(f"{answer.frames} frames", "is how long clips are.")]

    def section(self, measured, about):
        return section("length", "How long are they?", "Counted.", str(measured.answer.frames))
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch) -> str:
    (tmp_path / "their_lab").mkdir()
    (tmp_path / "their_lab" / "length.py").write_text(MINE)
    (tmp_path / "their_lab" / "nothing.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_lab.length"
    for name in [name for name in sys.modules if name.startswith("their_lab")]:
        del sys.modules[name]


def test_a_question_of_ones_own_is_one_file(mine, world, source, tmp_path):
    settings = EvaluationConfig(
        num_clips=2, horizon_seconds=1, num_samples=1, num_train_windows=2, questions=(mine,)
    )
    found = evaluate(world, source, settings, tmp_path / "out")
    assert list(found.results)[-1] == mine
    frames = found.results[mine].frames
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How long are they?" in page and f"{frames} frames" in page
    table = json.loads((tmp_path / "out" / "results.json").read_text())
    assert table["results"][mine] == {"frames": frames}
    # Who opens the results runs no code of theirs: the answer stays a table.
    assert Evaluation.parse(table).results[mine] == {"frames": frames}


def test_what_asks_nothing_is_named(mine):
    with pytest.raises(AvenirError, match="their_lab.nothing has no class that is a Question"):
        find_questions(["their_lab.nothing"])


def test_questions_come_in_order_each_by_its_files_name():
    found = find_questions()
    assert [each.order for each in found] == sorted(each.order for each in found)
    names = {each.name for each in found}
    assert names <= set(kinds("evaluation.questions")) and len(names) == len(found) >= 9
    assert all(find_question(name) is not None for name in names)
