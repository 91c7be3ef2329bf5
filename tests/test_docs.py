"""The pages are easy to read: lines of one width, plain words, and drawings that match the code."""

import re
import tomllib
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


def floors() -> list[str]:
    """Return the floors of the house as the import contract has them, from top to bottom."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [house] = [each for each in contracts["contracts"] if each.get("containers") == ["avenir"]]
    return [re.sub(r"[()]", "", layer) for layer in house["layers"]]


def section(page: Path, title: str) -> str:
    """Return what stands under a title of the second level."""
    [text] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", page.read_text(), re.M | re.S)
    return text


def test_the_drawing_of_the_house_is_the_import_contract():
    [drawing] = re.findall(
        r"^```\n(.*?)^```$", section(ROOT / "CONTRIBUTING.md", "The house"), re.M | re.S
    )
    assert drawing.splitlines() == floors(), (
        "CONTRIBUTING.md draws other floors than pyproject.toml"
    )


def test_the_table_of_the_house_has_the_floors_of_the_import_contract():
    table = section(DOCS / "the-three-roles.md", "Where everything is")
    drawn = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`.*?) \|", table, re.M)]
    assert drawn == [re.findall(r"\w+", floor) for floor in floors()]


def test_every_recipe_has_a_row():
    table = section(DOCS / "recipes.md", "Every recipe")
    rows = re.findall(r"^\| \[(\S+)\]\(\.\./recipes/(\S+)\.toml\) \|", table, re.M)
    recipes = (ROOT / "recipes").rglob("*.toml")
    own = [path for path in recipes if "No recipe of its own" not in path.read_text()]
    assert [title for title, _ in rows] == [link for _, link in rows]
    assert sorted(link for _, link in rows) == sorted(
        str(path.relative_to(ROOT / "recipes").with_suffix("")) for path in own
    )


def test_every_row_of_a_recipe_is_full():
    rows = re.findall(r"^\| \[.*$", section(DOCS / "recipes.md", "Every recipe"), re.M)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert {len(row) for row in cells} == {7}
    assert all(all(row) for row in cells)


@pytest.mark.parametrize("page", sorted(DOCS.glob("results/*.md")), ids=name)
def test_a_page_of_results_begins_with_question_answer_and_weakest_point(page):
    points = re.findall(r"^- \*\*([\w ]+):\*\* \S", page.read_text().partition("\n\n")[2], re.M)
    assert points[:3] == ["Question", "Answer", "Weakest point"]
    assert page.read_text().partition("\n\n")[2].startswith("- **Question:**")


WRITTEN_AS_IT_WAS = {"CHANGELOG.md", "docs/log.md", "docs/glossary.md"}
"""Logs, which stay as they were written, and the page that lists other words for ours."""
AVOIDED = re.compile(
    r"\b(nobody|whoever|said|untold|fore(tell|told)\w*|(is|are|was|as) told|what is what)\b", re.I
)
"""Words of riddles; the plain ones are: no one, predicted, given, printed."""


def avoided(text: str) -> list[str]:
    """Return the words of a page, outside of code, that it should not use."""
    prose = re.sub(r"`[^`]*`", "", without_code(text))
    return [match[0] for match in AVOIDED.finditer(" ".join(prose.split()))]


@pytest.mark.parametrize("page", [p for p in PAGES if name(p) not in WRITTEN_AS_IT_WAS], ids=name)
def test_pages_avoid_words_of_riddles(page):
    assert not avoided(page.read_text())


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").rglob("*.toml")), ids=name)
def test_headers_of_recipes_avoid_words_of_riddles(recipe):
    assert not avoided(" ".join(re.findall(r"#.*", recipe.read_text())))


def test_avoided_words_are_found_in_prose_and_not_in_code():
    text = "Nobody is\ntold; `whoever`\n```\nsaid\n```\nwhat was foretold."
    assert avoided(text) == ["Nobody", "is told", "foretold"]
