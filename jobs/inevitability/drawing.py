"""From tables to figures: what is drawn is what was written down."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.common.data.images.base import ImageSet
from jobs.inevitability import figures
from jobs.inevitability.examples import Perturbed

Row = Mapping[str, Any]
Rows = Sequence[Row]


def label_of(row: Row) -> str:
    """What a curve is called."""
    if row["resolution"] == 1:
        return str(row["network"])
    return f"{row['network']} x{row['resolution']}" + (", averaged" if row["kind"] == "averaged" else "")


def panels_of(trials: Mapping[str, tuple[Rows, Rows]]) -> list[figures.Panel]:
    """A panel a norm, with the curves at resolution 1 and the ceilings of every trial.

    trials: by name, the rows of the tables of curves and of ceilings. Where there are several, curves are named by
    their trial, and so are ceilings that are not the same in all of them.
    """
    norms = list(dict.fromkeys(row["norm"] for curves, _ in trials.values() for row in curves))
    norms = norms or list(dict.fromkeys(row["norm"] for _, ceilings in trials.values() for row in ceilings))
    return [_panel(norm, trials) for norm in norms]


def _panel(norm: str, trials: Mapping[str, tuple[Rows, Rows]]) -> figures.Panel:
    lines: list[figures.Line] = []
    ceilings: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for trial, (curves, own) in trials.items():
        prefix = f"{trial}: " if len(trials) > 1 else ""
        here = [row for row in curves if row["norm"] == norm and row["resolution"] == 1]
        for network in dict.fromkeys(row["network"] for row in here):
            rows = [row for row in here if row["network"] == network]
            epsilons, accuracy, low, high = _columns(rows, "epsilon", "accuracy", "low", "high")
            lines.append(figures.Line(f"{prefix}{network}", epsilons, accuracy, low, high))
        for row in own:
            if row["norm"] == norm:
                ceilings.setdefault((row["source"], row["ceiling"]), {}).setdefault(trial, []).append(row)
    shown: list[figures.CeilingLine] = []
    silent: dict[str, float] = {}
    for (source, label), by_trial in ceilings.items():
        first, *others = (_columns(rows, "epsilon", "value", "first_useful") for rows in by_trial.values())
        alike = len(by_trial) == len(trials) and all(each == first for each in others)
        for trial, rows in list(by_trial.items())[: 1 if alike else None]:
            prefix = "" if alike else f"{trial}: "
            epsilons, values = _columns(rows, "epsilon", "value")
            if min(values) >= 1:
                silent[prefix + label.removeprefix("bound, density ")] = rows[0]["first_useful"]
            else:
                shown.append(figures.CeilingLine(source, prefix + label, epsilons, values))
    return figures.Panel(norm, lines, shown, silent)


def resolution_lines(rows: Rows) -> dict[str, dict[str, list[figures.ResolutionLine]]]:
    """By network and norm, the curves at every resolution; none where there is only one."""
    lines: dict[str, dict[str, list[figures.ResolutionLine]]] = {}
    if len({row["resolution"] for row in rows}) < 2:
        return lines
    for network, norm, resolution, kind in dict.fromkeys(
        (row["network"], row["norm"], row["resolution"], row["kind"]) for row in rows
    ):
        own = [
            row
            for row in rows
            if (row["network"], row["norm"], row["resolution"], row["kind"]) == (network, norm, resolution, kind)
        ]
        epsilons, scaled, accuracy = _columns(own, "epsilon", "scaled_epsilon", "accuracy")
        line = figures.ResolutionLine(resolution, kind == "averaged", epsilons, scaled, accuracy)
        lines.setdefault(network, {}).setdefault(norm, []).append(line)
    return lines


def generated_panels(rows: Rows) -> list[figures.Panel]:
    """A panel for each network on generated images, its curve below the ceiling of the bound for these.

    rows: as of `generated.measurement.Robustness.curve_rows`, with the name of the trial.
    """
    panels = []
    trials = {row["trial"] for row in rows}
    for trial, network in dict.fromkeys((row["trial"], row["network"]) for row in rows):
        own = [row for row in rows if (row["trial"], row["network"]) == (trial, network)]
        epsilons, accuracy, low, high, values = _columns(own, "epsilon", "accuracy", "low", "high", "value")
        curve = figures.Line("keeps its answer", epsilons, accuracy, low, high)
        label, title = own[0]["ceiling"], f"{trial}: {network}" if len(trials) > 1 else network
        if min(values) >= 1:
            silent = {label.removeprefix("bound, "): own[0]["first_useful"]}
            panels.append(figures.Panel("L2", [curve], [], silent, title))
        else:
            ceiling = figures.CeilingLine("bound", label, epsilons, values)
            panels.append(figures.Panel("L2", [curve], [ceiling], {}, title))
    return panels


def growth_of(rows: Rows) -> dict[str, list[figures.Growth]]:
    """By norm, how the regions of every search grow, in the mean over seeds."""
    regions: dict[str, list[figures.Growth]] = {}
    for norm, search in dict.fromkeys((row["norm"], row["search"]) for row in rows):
        own = [row for row in rows if (row["norm"], row["search"]) == (norm, search)]
        epsilons = sorted({row["epsilon"] for row in own})
        risks = [[row for row in own if row["epsilon"] == epsilon] for epsilon in epsilons]
        fitted, others = (
            [[row[f"{part}_adversarial_risk"] for row in each] for each in risks] for part in ("train", "test")
        )
        regions.setdefault(norm, []).append(figures.Growth(search, epsilons, fitted, others))
    return regions


def columns_of(examples: Sequence[Perturbed], images: ImageSet) -> list[figures.Column]:
    """The columns of the picture of perturbed images."""
    names = dict(enumerate(images.classes))
    return [
        figures.Column(
            each.title,
            each.images,
            [
                f"{names.get(label, label)} ({confidence:.0%})"
                for label, confidence in zip(each.classes.tolist(), each.confidences.tolist(), strict=True)
            ],
        )
        for each in examples
    ]


def _columns(rows: Rows, *names: str) -> list[list[Any]]:
    return [[row[name] for row in rows] for name in names]
