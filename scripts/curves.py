"""Draw one metric of an evaluation against the horizon, as an SVG for docs/results/.

    python scripts/curves.py RUN/evaluation/results.json METRIC docs/results/NAME.svg

The curves, colours and bands are the report's own; what differs is that the picture stands alone.
"""

import json
import re
import sys
from html import escape
from importlib.resources import files
from pathlib import Path

from avenir.evaluation.metrics.frames import METRICS
from avenir.evaluation.questions.prediction import METHODS, Prediction
from avenir.evaluation.report.charts import HEIGHT, WIDTH, Axis, chart
from avenir.evaluation.results import Evaluation

HEAD = 78
PLAIN = """
text { font: 12.5px system-ui, sans-serif; fill: var(--ink); }
.legend path { fill: none; }
"""


def style() -> str:
    """Return the report's colours and the look of its lines, light only."""
    page = files("avenir.evaluation.report").joinpath("report.html").read_text()
    colours = re.search(r":root \{.*?\n\}", page, re.DOTALL)
    assert colours is not None
    marks = [row for row in page.splitlines() if re.match(r"\.(chart|grid|line)\b", row)]
    return "\n".join([colours[0], PLAIN, *(row.replace("inherit", "sans-serif") for row in marks)])


def picture(evaluation: Evaluation, metric: str) -> str:
    """Return the chart of one metric with its title and legend above."""
    prediction: Prediction = evaluation.results["prediction"]
    by_method = prediction.curves[metric]
    curves = {name: by_method[name] for name in METHODS if name in by_method}
    if evaluation.settings.num_samples == 1:
        curves.pop("world_mean")
    axis = Axis.horizon(max(len(curve.mean) for curve in curves.values()), evaluation.fps)
    drawing = chart(curves, METHODS, axis, METRICS[metric].label)
    drawing = drawing.replace("<svg ", f'<svg y="{HEAD}" width="{WIDTH}" height="{HEIGHT}" ', 1)
    legend = ""
    for number, name in enumerate(curves):
        x, y = 12 + number % 3 * 185, 34 + number // 3 * 18
        legend += f'<path class="line line-{name}" d="M{x} {y}h26"/>'
        legend += f'<text x="{x + 32}" y="{y + 4}">{escape(METHODS[name])}</text>'
    clips = prediction.num_clips
    title = f"{METRICS[metric].label}: {evaluation.world}, {clips} clips"
    height = HEAD + HEIGHT + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">'
        f"<style>{style()}</style><rect width='100%' height='100%' fill='var(--card)'/>"
        f'<text x="12" y="18" font-weight="600">{escape(title)}</text>'
        f'<g class="legend">{legend}</g>{drawing}</svg>\n'
    )


def main() -> None:
    """Read the results and write the picture."""
    results, metric, out = sys.argv[1:4]
    evaluation = Evaluation.parse(json.loads(Path(results).read_text()))
    Path(out).write_text(picture(evaluation, metric))


if __name__ == "__main__":
    main()
