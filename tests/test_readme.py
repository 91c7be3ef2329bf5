"""Every command and snippet of the README and of docs/ is executed, small and without a network.

A page is run from top to bottom in a copy of the checkout that holds a tiny trained world at
`runs/quickstart`, a folder of `videos`, one of them broken, and a `clip.mp4`.
"""

import csv
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"]

_STEPS = "train.steps=2 train.batch_size=2 train.num_samples=1"
_PARENT = " ".join(f"tokenizer.{word}" for word in _STEPS.split())
_SMALL_ENCODER = "encoder.width=8 encoder.depth=1 encoder.decoder_depth=1"
_SMALL_PARENT = " ".join(f"tokenizer.{word}" for word in _SMALL_ENCODER.split())
_SHORT = "data.train_recordings=8 data.test_recordings=8 data.episode_frames=40"
_FEW = f"{_SHORT} data.size='[32, 32]'"
_FAST = "train.batch_size=2 train.cache_recordings=4 predictor.depth=1"
_TINY = f"{_STEPS} {_PARENT} {_SMALL_PARENT} predictor.width=32"
_QUICK = f"{_TINY} {_FEW} train.cache_recordings=4"

REDUCED = {
    "scripts/test": None,  # it runs this file
    "scripts/check": None,
    "python -m pytest": None,
    "scripts/quickstart": f"{_QUICK} --clips 4 --seconds 0.8",
    "avenir show recipes/quickstart.toml": _QUICK,
    "avenir show recipes/example.toml": _QUICK,
    "avenir train recipes/quickstart.toml": _QUICK,
    "avenir train recipes/example.toml": _QUICK,
    "avenir train recipes/blocks.toml": f"{_STEPS} {_FEW}",
    "avenir train recipes/from_cache.toml": "train.steps=2 train.batch_size=2",
    "avenir train recipes/robot.toml": f"{_TINY} train.cache_phases=1 predictor.depth=1",
    "avenir train recipes/driving.toml": f"{_TINY} train.cache_phases=1 predictor.depth=1",
    "avenir train recipes/mine.toml": f"{_TINY} train.cache_phases=1 predictor.depth=1",
    "avenir train recipes/predictors/": f"{_QUICK} predictor.depth=1",
    "avenir train recipes/text/": "train.steps=2 train.batch_size=2 predictor.width=16",
    "avenir encode runs/quickstart_tokenizer": "data.train_recordings=3 data.test_recordings=2",
    "avenir evaluate": "--clips 8 --samples 2",
    "avenir compare": "--seconds 0.5",
    "avenir passport": "--clips 12",
    "avenir probe": "--clips 8 --windows 24",
    "avenir train recipes/dino.toml": f"{_STEPS} {_FEW} encoder.width=16",
    "avenir train recipes/vjepa.toml": f"{_STEPS} {_FEW} encoder.width=16 encoder.depth=1",
    "avenir plan runs/quickstart": "--candidates 4 --rounds 1",
    "avenir plan runs/quickstart --starts 100": "--starts 2 data.test_recordings=99",
    "avenir play": None,  # it goes on until it is stopped: tests/journeys/test_play.py
    "avenir study studies/width.toml": f"{_PARENT} {_SMALL_PARENT} {_SHORT} {_FAST} --seeds 1",
    "avenir study studies/alignment-demo.toml": None,  # tests/test_study.py runs a small one
}
"""What is added to commands that begin so, to make them quick; None: not run at all."""


ONCE = ("scripts/quickstart",)
"""Run for all pages together, before them."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2]) for match in found]


def reduced(script: str, already: tuple[str, ...] = ()) -> str:
    """Add to every command what makes it quick; leave out what is not run, or was already."""
    lines = []
    for line in script.splitlines():
        command, _, _ = line.partition("  #")
        begins = [begin for begin in REDUCED if command.strip().startswith(begin)]
        words = REDUCED[max(begins, key=len)] if begins else ""
        if words is not None and not command.startswith(already or "#"):
            lines.append(f"{command} {words}".strip())
    return "\n".join(lines)


def shell(script: str, folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "PIP_NO_INDEX": "1",
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"


def lay_out(folder: Path) -> None:
    """Copy what the commands touch, and let the environment of this test count as installed."""
    for name in ("scripts", "recipes", "studies"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    shell('echo "$(cat pyproject.toml constraints.txt | cksum) " > .venv/installed', folder)


def film(folder: Path) -> None:
    """Write drives with their actions, a broken one among them, and `clip.mp4`."""
    from avenir.data.synthetic import Synthetic, SyntheticConfig
    from avenir.video import write

    source = Synthetic(SyntheticConfig(size=(64, 80), episode_frames=56))
    for number, window in enumerate(source.spread("test", 56, 4)):
        drive = source.clip(window)
        path = write(folder / "videos" / f"drive{number}.mp4", drive)
        with path.with_suffix(".csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(source.signals["actions"].names)
            rows.writerows(drive.signals["actions"].tolist())
    (folder / "videos" / "broken.mp4").write_bytes(b"not a video")
    shutil.copy(folder / "videos" / "drive0.mp4", folder / "clip.mp4")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout, in which the quickstart was run and videos lie."""
    folder = tmp_path_factory.mktemp("checkout")
    lay_out(folder)
    film(folder)
    shell(reduced("scripts/quickstart"), folder)
    return folder


@pytest.fixture
def checkout(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "avenir"
    shutil.copytree(prepared, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_what_a_page_says_to_type_works(page, checkout):
    prepares = ""  # lines that prepare the shell for all that follows
    for language, run in groupby(blocks(page), key=lambda block: block.language):
        texts = [block.text for block in run]
        if language == "bash":
            for text in texts:
                shell(prepares + reduced(text, already=ONCE), checkout)
                prepares += "".join(re.findall(r"^(?:export|source) .*\n", text, re.MULTILINE))
            continue
        for text in texts:
            target = re.match(r"# (\S+\.(?:py|toml))\n", text)
            if target:
                path = checkout / target[1]
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
        if language == "python":
            program = "\n".join(text for text in texts if not text.startswith("# "))
            (checkout / "snippets.py").write_text(program)
            shell("python snippets.py", checkout)


def test_no_command_is_left_out_but_those_named_here():
    commands = [
        line
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for line in block.text.splitlines()
    ]
    said = [begin for begin in REDUCED if any(c.strip().startswith(begin) for c in commands)]
    assert said == [begin for begin in REDUCED if begin != "scripts/check"]


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)(#[^)]*)?\)", text)
    missing = [
        link
        for link, _ in links
        if "://" not in link and not ((ROOT / page).parent / link).exists()
    ]
    assert not missing


def test_the_tables_of_settings_are_those_of_the_code():
    spec = importlib.util.spec_from_file_location("settings", ROOT / "scripts" / "settings.py")
    assert spec is not None and spec.loader is not None
    settings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(settings)
    assert settings.PAGE.read_text() == settings.page(), "run python scripts/settings.py"


def test_the_version_is_said_once():
    import avenir

    project = (ROOT / "pyproject.toml").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    assert f'version = "{avenir.__version__}"' in project
    assert f"version: {avenir.__version__}\n" in citation
