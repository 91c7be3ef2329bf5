"""The pages are easy to read: lines of one width, plain words, and drawings that match the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("results/*.md")),
]
"""Pages that people write. Those below `results/NAME/` are written by `avenir study`."""
WIDTH = 120


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def without_code(text: str) -> str:
    """Blank the fenced blocks of a page; the lines keep their numbers."""
    blank = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    return blank.sub(lambda block: "\n" * block[0].count("\n"), text)


def too_wide(text: str) -> list[int]:
    """Return the numbers of lines wider than `WIDTH`, but for tables and for a link alone."""
    return [
        number
        for number, line in enumerate(without_code(text).splitlines(), start=1)
        if len(line) > WIDTH
        and not line.startswith("|")
        and not re.fullmatch(r"!?\[[^]]*\]\(\S+\)", line)
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lines_are_at_most_120_wide(page):
    assert not too_wide(page.read_text()), f"wider than {WIDTH}"


def test_a_wide_line_is_found():
    long = "a " * 61
    text = f"{long}\n```\n{long}\n```\n| {long} |\n![{long}](picture.gif)\nshort\n{long}[a](b)\n"
    assert too_wide(text) == [1, 8]
