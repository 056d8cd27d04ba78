"""The commands that look at what there is: jobs, runs and their logs, models.

Modules that need torch or Ray are imported by the commands that use them, so that the others answer at once.
"""

import sys

import click

from service import catalog, spec
from service.cli import remote
from service.cli.options import address_option, json_option, store_option
from service.cli.printing import next_steps, print_json, print_rows, print_verdict
from service.execution import history, layout, logs
from service.formatting import duration, metrics_text
from service.planning import describe
from service.store import open_store


@click.command()
@click.argument("job_name", metavar="[JOB]", required=False)
@json_option
def jobs(job_name: str | None, as_json: bool) -> None:
    """The catalogue of jobs, or all parameters of one."""
    if job_name is None:
        rows = [{"job": name, "about": catalog.about(name)} for name in catalog.names()]
        print_json(rows) if as_json else print_rows(rows)
        return
    job = catalog.load(job_name)
    parameters = list(describe.fields(job.params, "params."))
    if as_json:
        print_json({"job": job.name, "about": job.about, "parameters": [vars(each) for each in parameters]})
        return
    print(f"{job.about}\n")
    print(*parameters, sep="\n")
    print("\nBesides `job` and these, every spec has:\n")
    print(*(each for each in describe.fields(spec.JobSpec) if each.name not in ("job", "params")), sep="\n")


@click.command()
@store_option
@address_option()
@json_option
def runs(store: str, address: str | None, as_json: bool) -> None:
    """The runs of a store, in the order of their starts."""
    if address is not None:
        remote.print_runs(address, as_json)
        return
    records, damaged = history.all_runs(open_store(store))
    rows = [
        {
            "run": each.id,
            "job": each.job,
            "status": each.status,
            "trials": f"{each.trials_done}/{each.trials}",
            "created": each.created,
            "took": duration(each.seconds),
        }
        for each in records
    ]
    print_json(rows) if as_json else print_rows(rows)
    for sentence in damaged:
        print(f"assay: {sentence}", file=sys.stderr)


@click.command()
@click.argument("run_name", metavar="RUN")
@store_option
@json_option
def show(run_name: str, store: str, as_json: bool) -> None:
    """One run: its state, its trials and its files. RUN is an id, its beginning or end, `last`, or `last~1`."""
    folder = history.run_folder(open_store(store), run_name)
    state, trials = history.load(folder), history.trials(folder)
    if as_json:
        print_json({**state.model_dump(mode="json"), "ended_trials": [each.model_dump(mode="json") for each in trials]})
        return
    print(f"run {state.id} of job {state.job}")
    print_verdict(state, folder, next_steps(state, store)[1:])
    if state.failure:
        print(f"  because {state.failure.message}")
    print_rows(
        [
            {
                "trial": each.label,
                "status": each.status + (" (best)" if each.id in state.marked else ""),
                "took": duration(each.seconds),
                "newest": each.failure.message if each.failure else metrics_text(each.metrics),
            }
            for each in trials
        ]
    )


@click.command()
@click.argument("run_names", nargs=-1, required=True, metavar="RUN RUN...")
@store_option
@json_option
def compare(run_names: tuple[str, ...], store: str, as_json: bool) -> None:
    """What differs between the specs of runs, and the metrics of their best trials side by side."""
    folders = [history.run_folder(open_store(store), name) for name in run_names]
    fields, metrics = history.compare(folders)
    names = [folder.name for folder in folders]
    if as_json:
        sides = {"spec": fields, "metrics": metrics}
        print_json(
            {"runs": names, **{side: {d.name: d.values for d in differences} for side, differences in sides.items()}}
        )
        return
    for title, lines in (("field", fields), ("metric", metrics)):
        print_rows([{title: d.name, **dict(zip(names, d.values, strict=True))} for d in lines])


@click.command("logs")
@click.argument("run_name", metavar="RUN")
@click.option("--follow", "-f", is_flag=True, help="Go on while the run does.")
@store_option
@address_option()
def show_log(run_name: str, follow: bool, store: str, address: str | None) -> None:
    """The log of a run: what Ray, the workers and the job printed. With --address: what the driver said."""
    if address is not None:
        remote.print_log(address, run_name, follow)
        return
    for text in logs.read(history.run_folder(open_store(store), run_name), follow):
        click.echo(text, nl=False)


@click.command("models")
@click.argument("model", metavar="[NAME[/VERSION]]", required=False)
@store_option
@json_option
def show_models(model: str | None, store: str, as_json: bool) -> None:
    """The trained models of a store, or the card of one."""
    from service import models

    opened = open_store(store)
    if model is not None:
        card = models.find(opened, *models.parse_reference(model))
        print_json(card.model_dump(mode="json"))
        return
    rows = [
        {
            "model": f"{card.name}/{card.version}",
            "study": card.study,
            "task": card.task,
            "parameters": card.parameters,
            "run": card.run or "",
            "about": card.description,
        }
        for card in models.list_models(opened)
    ]
    print_json(rows) if as_json else print_rows(rows)


@click.command()
@click.argument("run_names", nargs=-1, metavar="[RUN...]")
@store_option
@click.option("--out", default="gallery", help="Folder or URI that the pages are written to (default gallery).")
def gallery(run_names: tuple[str, ...], store: str, out: str) -> None:
    """All runs, or some, as web pages: figures, sounds, tables and metrics, those of a job side by side."""
    from service.report import gallery as pages

    opened, folder = open_store(store), open_store(out)
    runs, damaged = history.all_runs(opened)
    if run_names:
        asked = {history.run_folder(opened, name).name for name in run_names}
        runs = [each for each in runs if each.id in asked]
        damaged = [sentence for sentence in damaged if sentence.partition(":")[0] in asked]
    damaged += pages.write([(layout.run(opened, each.id), each) for each in runs], folder)
    print(folder.uri_of(pages.INDEX))
    for sentence in damaged:
        print(f"assay: {sentence}", file=sys.stderr)


COMMANDS = (jobs, runs, show, compare, show_log, show_models, gallery)
