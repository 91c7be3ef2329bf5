"""The house keeps its rules: imports run downward, kinds are strangers, files stay small."""

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "avenir").rglob("*.py"))

MOST_LINES, MOST_FUNCTION_LINES = 400, 80
FORBIDDEN = {"utils", "util", "common", "base", "core", "manager", "helper", "helpers", "wrapper"}

WRITING = {"write_text", "write_bytes", "write_table", "save_file", "mkdir", "touch", "symlink_to"}
WRITING |= {"unlink", "rename", "rmdir", "rmtree", "NamedTemporaryFile", "mkstemp", "mkdtemp"}
LOGS = {"src/avenir/study/running.py": 1}
"""Files that are opened to be written where they are: logs, which nothing reads again."""

PLANTED = [
    ("nn/conv.py", "import avenir.training", "avenir.nn -> avenir.training"),
    ("encoders/kl.py", "import avenir.predictors", "avenir.encoders.kl -> avenir.predictors"),
    ("clip.py", "import avenir.video", "avenir.clip -> avenir.video"),
    ("training/ema.py", "import avenir.evaluation", "avenir.training.ema -> avenir.evaluation"),
    (
        "encoders/kl.py",
        "import avenir.encoders.segmenter",
        "avenir.encoders.kl -> avenir.encoders.segmenter",
    ),
    (
        "evaluation/metrics/frames.py",
        "import avenir.evaluation.held_out",
        "avenir.evaluation.metrics.frames -> avenir.evaluation.held_out",
    ),
    (
        "evaluation/report/tables.py",
        "import avenir.evaluation.questions.prediction",
        "avenir.evaluation.report.tables -> avenir.evaluation.questions.prediction",
    ),
    (
        "evaluation/questions/prediction.py",
        "import avenir.evaluation.questions.generation",
        "avenir.evaluation.questions.prediction -> avenir.evaluation.questions.generation",
    ),
    ("data/cached.py", "import avenir.data.folder", "avenir.data.cached -> avenir.data.folder"),
]
"""A file, a line that must not be in it, and how the check names that import."""


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Check the imports of the package in `tree/src` against the contracts in its pyproject."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    where = {**os.environ, "PYTHONPATH": str(tree / "src"), "COLUMNS": "200"}
    return subprocess.run(command, cwd=tree, env=where, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored)
    return tmp_path


def test_imports_run_downward():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("file", "line", "named"), PLANTED, ids=[line for _, line, _ in PLANTED])
def test_a_planted_import_is_found_and_named(copy, file, line, named):
    planted = copy / "src" / "avenir" / file
    planted.write_text(planted.read_text() + f"\n{line}\n")
    result = lint(copy)
    assert result.returncode == 1, result.stdout
    importer, imported = named.split(" -> ")
    assert re.search(rf"{re.escape(importer)}\S* -> {re.escape(imported)}", result.stdout)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def public_names(tree: ast.Module) -> Iterator[str]:
    """Name what a module and its classes define under a name without underscore in front."""
    for node in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]:
        for each in node.body:
            if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names = [each.name]
            elif isinstance(each, ast.Assign | ast.AnnAssign):
                targets = each.targets if isinstance(each, ast.Assign) else [each.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            else:
                names = []
            yield from (name for name in names if not name.startswith("_"))


def words(name: str) -> set[str]:
    """Split a name at underscores and capitals: `LatentShape` is latent, shape."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def problems(path: Path) -> Iterator[str]:
    text = path.read_text()
    tree = ast.parse(text)
    where = path.relative_to(ROOT)
    if len(text.splitlines()) > MOST_LINES:
        yield f"{where} has {len(text.splitlines())} lines; at most {MOST_LINES}"
    for function in functions(tree):
        length = (function.end_lineno or 0) - function.lineno + 1
        if length > MOST_FUNCTION_LINES:
            yield f"{where}: {function.name} has {length} lines; at most {MOST_FUNCTION_LINES}"
    for name in [*where.with_suffix("").parts, *public_names(tree)]:
        if words(name) & FORBIDDEN:
            yield f"{where}: {name!r} says nothing about what it is"


def test_files_and_functions_stay_small_and_are_named_for_what_they_are():
    assert len(SOURCES) > 50
    assert not [problem for path in SOURCES for problem in problems(path)]


def test_the_sizes_and_names_are_really_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "loss_utils.py"
    path.write_text("class BaseLoss:\n    def long(self):\n" + "        x = 1\n" * 400)
    assert len(list(problems(path))) == 4


MOST_VERB_LINES = 120
NOT_VERBS = {"__init__.py", "arguments.py"}
VERBS = [path for path in SOURCES if path.parent.name == "cli" and path.name not in NOT_VERBS]
MEASURING = re.compile(r"(numpy|scipy|avenir\.(evaluation\.metrics|losses|nn))(\.|$)")
"""Modules that measure: a verb parses, calls and prints."""
THREADS = {"get_num_threads", "set_num_threads"}
"""All that a verb may ask torch for."""


def imports(path: Path) -> Iterator[str]:
    """Name the modules that a file imports when it runs, not those it names for types alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def verb_problems(path: Path) -> Iterator[str]:
    length = len(path.read_text().splitlines())
    if length > MOST_VERB_LINES:
        yield f"{path.name} has {length} lines; at most {MOST_VERB_LINES}"
    yield from (f"{path.name}: {name}" for name in imports(path) if MEASURING.match(name))
    used = set(re.findall(r"\btorch\.(\w+)", path.read_text())) - THREADS
    yield from (f"{path.name}: torch.{name}" for name in used)


def test_a_verb_is_short_and_measures_nothing():
    assert len(VERBS) > 10
    assert not [problem for path in VERBS for problem in verb_problems(path)]


def test_a_verb_that_measures_is_found(tmp_path):
    path = tmp_path / "verb.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "def verb():\n    torch.cat([])\n    from avenir.evaluation.metrics import frames\n"
        + "x = 1\n"
        * 120
    )
    assert len(list(verb_problems(path))) == 3


def classes_asked_for(path: Path) -> list[str]:
    """Find where a file asks which class a source is of."""
    kinds = "Synthetic|LeRobot|Gymnasium|Folder|Cached|TextFolder"
    return re.findall(rf"isinstance\([^()]*,[^()]*\b(?:{kinds})\b[^()]*\)", path.read_text())


def test_evaluation_asks_sources_for_what_they_can_do_and_never_for_their_class():
    rooms = [path for path in SOURCES if path.is_relative_to(ROOT / "src/avenir/evaluation")]
    assert len(rooms) > 30
    assert not {path.name: found for path in rooms if (found := classes_asked_for(path))}


def test_asking_for_the_class_of_a_source_is_found(tmp_path):
    path = tmp_path / "question.py"
    path.write_text("if isinstance(source, Synthetic | LeRobot):\n    pass\n")
    assert len(classes_asked_for(path)) == 1


def test_the_kind_of_an_encoder_does_not_say_what_a_world_is_of():
    """Worlds and encoders have a `modality`."""
    asking = re.compile(r"""\bkind["']?\]? *[!=]= *["']text["']""")
    assert asking.search('world.card.encoder["kind"] == "text"')
    assert not [path.name for path in SOURCES if asking.search(path.read_text())]


def classes(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                yield node.name


def test_no_two_classes_have_one_name():
    counts = Counter(classes(SOURCES))
    assert len(counts) > 300
    assert [name for name, count in counts.items() if count > 1] == []


def writes(path: Path) -> Iterator[str]:
    """Name calls that change the disk, but of a part that `files.whole` gave to be written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
            continue
        given = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        given += [*node.args, *(keyword.value for keyword in node.keywords)]
        if any(isinstance(each, ast.Name) and each.id == "part" for each in given):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        modes = [each.value for each in given if isinstance(each, ast.Constant)]
        opens = any(isinstance(mode, str) and re.fullmatch("[wax][bt+]*", mode) for mode in modes)
        if name in WRITING or (name == "open" and opens):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {name}"


def test_files_are_written_by_one_module():
    """What is written anywhere else would not be whole after a cut."""
    ours = "src/avenir/files.py"
    found = [
        each for path in SOURCES if str(path.relative_to(ROOT)) != ours for each in writes(path)
    ]
    logs = {name: sum(each.startswith(f"{name}:") for each in found) for name in LOGS}
    assert logs == LOGS, found
    assert len(found) == sum(LOGS.values()), found


def test_a_planted_write_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "writer.py"
    path.write_text(
        'path.write_text("")\nopen(path, "w")\npath.open(mode="ab")\npath.open()\n'
        'with whole(path) as part:\n    part.write_text("")\n    pq.write_table(table, part)\n'
        "pq.write_table(table, path)\n"
    )
    assert [int(re.findall(r":(\d+) ", each)[0]) for each in writes(path)] == [1, 2, 3, 8]


REPLACED = {
    "Asked",
    "Exit",
    "Judge",
    "Marks",
    "Moment",
    "Obeyed",
    "Shown",
    "Tally",
    "Tap",
    "Told",
    "detours",
    "dream",
    "dreamt",
    "enter",
    "foretell",
    "foretold",
    "forgotten",
    "full_past",
    "leave",
    "let_go",
    "obedience",
    "own_past",
    "said",
    "tally",
    "tap",
    "told",
}
"""Names that have the field's own words in their place."""


def names(path: Path) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def test_replaced_names_do_not_come_back():
    assert "attention_mask" in set().union(*map(names, SOURCES))
    found = {path.name: names(path) & REPLACED for path in SOURCES}
    assert {file: words for file, words in found.items() if words} == {}
