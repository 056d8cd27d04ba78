"""`assay check`: what a spec would schedule and what that would cost."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from service import catalog, spec
from service.cli.options import json_option
from service.cli.printing import print_json
from service.execution import history
from service.formatting import duration, number
from service.spec import JobSpec
from service.store import open_store

if TYPE_CHECKING:
    from service.planning.costs import Cost

SHOWN = 20  # groups of trials that are told of


@click.command()
@click.argument("spec_file", metavar="SPEC")
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@json_option
def check(spec_file: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Validate a spec and say what it would schedule and what that costs. Runs nothing."""
    from service.planning import costs, plan

    job_spec = spec.load(spec_file, list(overrides))
    plans = plan.trials(job_spec)
    store = open_store(job_spec.store)
    earlier = history.seconds_of_same(store, job_spec)
    estimated = costs.costs(plans)
    cores = os.cpu_count() or 1
    seconds = costs.seconds_on(cores, estimated, job_spec.limits.max_concurrent)
    if as_json:
        print_json(
            {
                "trials": [each.label for each in plans],
                "estimates": [{"trials": each.labels, **asdict(each.estimate)} for each in estimated],
                "cores": cores,
                "seconds": seconds,
                "store": store.uri,
                "seconds_of_last_run": earlier,
                "spec": job_spec.tree(),
            }
        )
        return
    print(f"{spec_file} is valid: job {job_spec.job}, {len(plans)} trial(s), {_each(job_spec)}, store {store.uri}")
    for cost in estimated[:SHOWN]:
        print_cost(cost)
    if len(estimated) > SHOWN:
        print(f"  … and {len(estimated) - SHOWN} more")
    if seconds is not None:
        work = sum(cost.core_seconds or 0.0 for cost in estimated)
        print(f"all of them: {duration(work)} on one core, about {duration(seconds)} on the {cores} cores here")
    took = "unknown, this spec has not been run in this store" if earlier is None else duration(earlier)
    print(f"time of the last run: {took}")


def _each(job_spec: JobSpec) -> str:
    """What a trial, or a task of cells, occupies."""
    resources = job_spec.resources
    what = "each task of theirs" if catalog.load(job_spec.job).placement == "fan_out" else "each"
    workers = f"{resources.workers} workers of " if resources.workers > 1 else ""
    gpus = f" and {resources.gpus:g} GPU" if resources.gpus else ""
    return f"{what} on {workers}{resources.cpus:g} CPU{gpus}"


def print_cost(cost: "Cost") -> None:
    """Trials that cost the same, and what each of them costs."""
    first, *others = cost.labels
    print(f"  {first}" + (f" and {len(others)} more like it, each" if others else ""))
    for name, value in cost.estimate.details.items():
        print(f"    {name}: {number(value)}")
    if cost.estimate.multiply_adds is not None:
        print(f"    multiply-adds: {number(cost.estimate.multiply_adds)}")
    if cost.estimate.pieces > 1:
        print(f"    parts that may be computed at the same time: {cost.estimate.pieces:,}")
    if cost.estimate.core_seconds is not None:
        print(f"    time on one core here: {duration(cost.estimate.core_seconds)}")
