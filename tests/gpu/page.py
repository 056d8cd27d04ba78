"""What was found, as one page that needs nothing beside it."""

import math
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>GPU check</title><style>
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{border-bottom:1px solid #d0d7de;padding:.3rem .6rem;
text-align:left;vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}
.good{color:#1a7f37}.bad{color:#cf222e;font-weight:600}code{background:#f6f8fa;padding:.1rem .3rem}
</style></head><body>
<h1>GPU check: <span class="{{ 'good' if passed else 'bad' }}">{{ 'passed' if passed else 'not passed' }}</span></h1>
<p>{% for name, value in machine.items() %}{{ name }} {{ value }}{{ '; ' if not loop.last }}{% endfor %};
{{ '%.0f'|format(seconds) }} seconds. {{ command }}</p>
{% for table in tables %}<h2>{{ table.title }}</h2><p>{{ table.about }}</p>
<table><tr>{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for value in row %}
<td{{ ' class=n' if value is number }}>{{ value|shown }}</td>{% endfor %}
</tr>{% endfor %}</table>{% endfor %}</body></html>
"""


def shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def page(found: dict[str, Any], passed: bool) -> str:
    """found: what the JSON holds."""
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["shown"] = shown
    tables = [
        _table(
            "Every study",
            "One trial of each study's smallest spec, in float32 without TF32 if nothing else is said. The worst "
            "difference between the GPU and the CPU is in units of "
            "what is tolerated: 1 is the most that passes. Bits: twice on the GPU, and killed and gone on with.",
            (
                "study",
                "passed",
                "numbers",
                "worst difference",
                "where",
                "same twice",
                "same resumed",
                "seconds",
                "problem",
            ),
            [
                (
                    *(row[name] for name in ("study", "passed", "numbers", "worst", "worst_number")),
                    *(row["same_twice"], row["same_resumed"]),
                    ", ".join(f"{name} {value}" for name, value in row["seconds"].items()),
                    row["problem"] or "; ".join(row["different"][:3]),
                )
                for row in found["studies"]
            ],
        ),
        _table(
            "Hot paths",
            "Samples a second, of ours, of the bound (its convolutions or products alone in the same precision) and of "
            "the plain way (float32 with torch's default, TF32 in convolutions; one batch after another, a loss read "
            "after each).",
            ("path", "ours", "bound", "plain", "of the bound", "goal", "times plain", "problem"),
            [
                (
                    *(row[name] for name in ("name", "ours", "bound", "plain", "of_bound", "goal", "of_plain")),
                    row["problem"] or row["note"],
                )
                for row in found["hot_paths"]
            ],
        ),
        _table(
            "Memory",
            "The largest batch, growth, and sharing.",
            ("what", "found", "passed", "problem"),
            [tuple(row[name] for name in ("name", "value", "passed", "problem")) for row in found["memory"]],
        ),
    ]
    template = environment.from_string(PAGE)
    return template.render(
        passed=passed, machine=found["machine"], seconds=found["seconds"], command=found["command"], tables=tables
    )


def _table(title: str, about: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {"title": title, "about": about, "columns": columns, "rows": rows}
