"""The page of a world of text: what bytes cost, what it writes in so many steps, and texts to read.

Writes `results.json` and `report.html`. Measures nothing.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from avenir.evaluation.questions.text import WITHOUT_WORLD, Filled, Passage, TextEvaluation, Written
from avenir.evaluation.report.html import how, page, section
from avenir.evaluation.report.tables import plain_table, written
from avenir.files import write_whole

_STYLE = """
.passage { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.passage i { color: var(--muted); font-style: normal; }
.passages td, .passages thead th { text-align: left; white-space: normal; width: 50%; }
"""


def write_text_report(
    folder: Path, evaluation: TextEvaluation, recipe: str, provenance: Mapping[str, Any]
) -> None:
    """Write everything an evaluation of text leaves behind into `folder`."""
    write_whole(folder / "results.json", evaluation.model_dump_json(indent=2) + "\n")
    write_whole(folder / "report.html", text_page(evaluation, recipe, provenance))


def text_page(evaluation: TextEvaluation, recipe: str, provenance: Mapping[str, Any]) -> str:
    """Return the whole page as HTML."""
    sections = [_costs(evaluation), _writing(evaluation)]
    if evaluation.filled is not None:
        sections.append(_filling(evaluation.filled, _noun(evaluation)))
    if evaluation.passages:
        sections.append(_reading(evaluation.passages))
    sections.append(how(evaluation, recipe, provenance))
    lead = (
        f"{evaluation.num_windows:,} held-out texts: {evaluation.past} {_noun(evaluation)} given, "
        f"{evaluation.horizon} to come."
    )
    if evaluation.bytes_per_token != 1:
        lead += f" A token is {evaluation.bytes_per_token:.2f} bytes on average."
    return page("Avenir evaluation", evaluation.world, lead, sections, _STYLE)


def _costs(evaluation: TextEvaluation) -> str:
    lines: list[tuple[str, list[str]]] = [("", ["bits per byte"])]
    if evaluation.cost is not None:
        lines.append(("the world", [_at_most(evaluation.bounds) + written(evaluation.cost, ".3f")]))
    lines += [
        (label, [written(evaluation.without_world[name], ".3f")])
        for name, label in WITHOUT_WORLD.items()
    ]
    return section(
        "cost",
        "What bytes cost",
        "Bits it takes to write the true bytes down, given those before, with the chances that "
        "each gives them: fewer is better. Of what is masked, the cost is a bound.",
        plain_table("", lines),
    )


def _writing(evaluation: TextEvaluation) -> str:
    judge = evaluation.judge
    head = ["a judge pays, bits per byte"] if judge else []
    head += ["bits of its bytes", "runs of 4 that are new", "bytes per second"]

    def line(row: Written) -> list[str]:
        judged = _at_most(evaluation.judge_bounds) + written(row.judged, ".3f")
        cells = [judged] if judge else []
        rate = "–" if row.bytes_per_second is None else f"{row.bytes_per_second:,.0f}"
        return [*cells, f"{row.entropy:.2f}", f"{100 * row.distinct:.0f} %", rate]

    rows = [(_in_steps(row.steps, evaluation), line(row)) for row in evaluation.written]
    table = plain_table("", [("", head), *rows, ("true texts", line(evaluation.truth))])
    who = f"The judge is {judge!r}. " if judge else "No judge: name a world with --evaluator. "
    return section(
        "writing",
        "What it writes",
        f"{who}What is cheap to a judge can be a repetition: then its bytes hold fewer bits, and "
        "fewer of its runs are new, than those of true texts.",
        table,
    )


def _at_most(bounds: bool) -> str:
    return "at most " if bounds else ""


def _in_steps(steps: int | None, evaluation: TextEvaluation) -> str:
    if steps is None:
        return "one after the other"
    every = evaluation.at_once
    words = f"{steps} step{'s' * (steps > 1)}"
    if every == evaluation.horizon:
        return words
    return f"{words} for every {every} {_noun(evaluation)}"


def _noun(evaluation: TextEvaluation) -> str:
    return "bytes" if evaluation.bytes_per_token == 1 else "tokens"


def _filling(filled: Filled, noun: str) -> str:
    shares = {"both sides are seen": filled.both, "only what is before": filled.before}
    lines = [(name, [written(share, ".3f")]) for name, share in shares.items()]
    return section(
        "filling",
        "Holes it fills",
        f"Share of the {noun} of a hole of {filled.length} that are the true ones, filled in as "
        "many steps as the world's settings say.",
        plain_table("", [("", ["right"]), *lines]),
    )


def _reading(passages: tuple[Passage, ...]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(each.name)}</th>'
        + "".join(
            f'<td><pre class="passage"><i>{escape(each.past)}</i>{escape(more)}</pre></td>'
            for more in (each.made, each.true)
        )
        + "</tr>"
        for each in passages
    )
    return section(
        "texts",
        "Texts to read",
        "Pale is what was given.",
        '<div class="scroll"><table class="passages"><thead><tr><th scope="col"></th>'
        f'<th scope="col">the world</th><th scope="col">the true text</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>",
    )
