"""The command line. Each command calls one function of the service and prints what it returned.

Modules that need torch or Ray are imported by the commands that use them, so that the others answer at once.

Exit codes: 0 done, 1 the run failed, 2 bad input or store, 3 some trials or cells failed, 130 cancelled.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from service import catalog, spec
from service.cli import remote, views
from service.cli.options import Command, address_option, json_option, store_option
from service.cli.printing import next_steps, print_json, print_verdict
from service.cluster import address as address_of
from service.errors import AssayError, RunCancelledError, RunFailedError, RunPartialError, nearest
from service.execution import history, layout, logs, records
from service.execution.records import RunRecord
from service.formatting import duration, number
from service.store import open_store

if TYPE_CHECKING:
    from service.execution.runner import Execution

SHOWN = 20  # trials that `assay check` tells of


class _Commands(click.Group):
    """Suggests the nearest command for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            raise click.UsageError(f"no command {args[0]!r}: {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. An error of Assay's is a sentence or two on standard error."""
    sys.path.insert(0, os.getcwd())  # import paths in a spec start where the command is given
    words = list(sys.argv[1:] if words is None else words)
    try:
        assay.main(words, prog_name="assay", standalone_mode=False)
    except AssayError as error:
        if "--debug" in words:
            raise
        print(f"assay: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"       {error.hint}", file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return RunCancelledError.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # as in `assay runs | head`
    return 0


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def assay(debug: bool) -> None:
    """Studies of neural networks as jobs on Ray."""


def _execution_options(command: Command) -> Command:
    for option in (
        click.option("--raw", is_flag=True, help="Leave the output of Ray and of the jobs on the terminal."),
        click.option("--cpus", type=click.IntRange(1), help="Cores of the embedded Ray (default: all)."),
        click.option("--address", help="host:port of a Ray cluster (RAY_ADDRESS; default: an embedded Ray)."),
        click.option("--serial", is_flag=True, help="In this process, without Ray."),
    ):
        command = option(command)
    return command


# ---- running ------------------------------------------------------------------------------------------------------


@assay.command()
@click.argument("spec_file", metavar="SPEC")
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--id", "run_id", help="The id of the run (default: made from the time and the name).")
@click.option("--again", is_flag=True, help="Go on with the run of this --id if it is there: for launchers that retry.")
@_execution_options
@json_option
def run(spec_file: str, overrides: tuple[str, ...], run_id: str | None, again: bool, as_json: bool, **how: Any) -> None:
    """Run a spec, with fields overridden: `assay run SPEC seed=3 params.training.lr=1e-3`."""
    from service.execution import runner
    from service.planning import plan

    job_spec = spec.load(spec_file, list(overrides))
    run_id = run_id or runner.new_run_id(job_spec.title)
    trials = len(plan.trials(job_spec))
    store = open_store(job_spec.store)

    def act(execution: "Execution") -> RunRecord:
        if again and history.begun(layout.run(store, run_id), job_spec):
            return runner.resume(store, run_id, execution)
        return runner.start(job_spec, execution, run_id)

    _execute(run_id, job_spec.store, trials, as_json, act, **how)


@assay.command()
@click.argument("run_name", metavar="RUN")
@store_option
@_execution_options
@remote.options
@json_option
def resume(
    run_name: str,
    store: str,
    as_json: bool,
    detach: bool,
    insecure: bool,
    growth: str | None,
    driver_cpus: float,
    **how: Any,
) -> None:
    """Go on with a run that was killed or cancelled, or try its failed trials again.

    With an --address that begins with http:// the run goes on there, as one that was submitted.
    """
    if address_of.is_dashboard(how["address"]):
        head = remote.head_at(how["address"], insecure)
        head.resume(run_name, store, remote.read_growth(growth), driver_cpus)
        remote.follow(head, run_name, store, detach)
        return
    from service.execution import runner

    opened = open_store(store)
    folder = history.run_folder(opened, run_name)
    trials, run_id = records.read_run(folder).trials, folder.name
    _execute(run_id, store, trials, as_json, lambda execution: runner.resume(opened, run_id, execution), **how)


def _execute(
    run_id: str,
    store: str,
    trials: int,
    as_json: bool,
    act: "Callable[[Execution], RunRecord]",
    *,
    serial: bool,
    address: str | None,
    cpus: int | None,
    raw: bool,
) -> None:
    """Carry out a run with live progress and all other output in its log. The verdict becomes the exit code."""
    from service.cli import live
    from service.execution.runner import Execution

    with logs.captured(enabled=not raw) as (log_file, terminal):
        console = Console(file=sys.stderr if as_json else terminal)
        console.print(f"run {run_id} in {open_store(store).uri}", highlight=False, soft_wrap=True, markup=False)
        with live.progress_for(console, trials) as shown:
            state = act(Execution(serial, address, cpus, shown, log_file))
    if as_json:
        print_json(state.model_dump(mode="json"))
    else:
        print_verdict(state, layout.run(open_store(store), state.id), next_steps(state, store))
    message = state.failure.message if state.failure else state.status
    match state.status:
        case "partial":
            raise RunPartialError(message, hint="`assay resume` tries what failed again")
        case "cancelled":
            raise RunCancelledError(message)
        case "failed":
            raise RunFailedError(message, hint="`assay show` and `assay logs` say more")


for _command in (remote.submit, *views.COMMANDS):
    assay.add_command(_command)


@assay.command()
@click.argument("spec_file", metavar="SPEC")
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@json_option
def check(spec_file: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Validate a spec and say what it would schedule. Runs nothing."""
    from service.planning import plan

    job_spec = spec.load(spec_file, list(overrides))
    plans = plan.trials(job_spec)
    store, resources = open_store(job_spec.store), job_spec.resources
    earlier = history.seconds_of_same(store, job_spec)
    estimates = plan.estimates(plans[:SHOWN])
    if as_json:
        labels = [each.label for each in plans]
        costs = {each.label: asdict(cost) for each, cost in zip(plans, estimates, strict=False)}
        print_json(
            {
                "trials": labels,
                "estimates": costs,
                "store": store.uri,
                "seconds_of_last_run": earlier,
                "spec": job_spec.tree(),
            }
        )
        return
    each = "each task of theirs on " if catalog.load(job_spec.job).placement == "fan_out" else "each on "
    each += f"{resources.workers} workers of " if resources.workers > 1 else ""
    each += f"{resources.cpus:g} CPU" + (f" and {resources.gpus:g} GPU" if resources.gpus else "")
    print(f"{spec_file} is valid: job {job_spec.job}, {len(plans)} trial(s), {each}, store {store.uri}")
    for trial, cost in zip(plans, estimates, strict=False):
        print(f"  {trial.label}")
        for name, value in cost.details.items():
            print(f"    {name}: {number(value)}")
        if cost.multiply_adds is not None:
            print(f"    multiply-adds: {number(cost.multiply_adds)}")
        if cost.core_seconds is not None:
            print(f"    on one core here: {duration(cost.core_seconds)}")
    if len(plans) > SHOWN:
        print(f"  … and {len(plans) - SHOWN} more")
    took = "unknown, this spec has not been run in this store" if earlier is None else duration(earlier)
    print(f"time of the last run: {took}")


@assay.command()
@click.argument("run_name", metavar="RUN")
@store_option
@address_option()
def cancel(run_name: str, store: str, address: str | None) -> None:
    """Ask a run to save and stop. It can be resumed. With --address: wait until it has."""
    if address is not None:
        remote.cancel(address, run_name)
        return
    folder = history.run_folder(open_store(store), run_name)
    state = history.load(folder)
    if state.status != "running":
        print(f"run {state.id} is not running: {state.status}")
        return
    folder.write(layout.CANCEL, b"")
    print(f"asked run {state.id} to save and stop; `assay resume {state.id}` goes on later")


@assay.command()
@store_option
@click.option("--config", type=click.Path(), help="Limits and batching of the endpoints, as in configs/serve.yaml.")
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on (default 8000).")
@click.option("--without-keys", is_flag=True, help="Let everybody in, also on a public address.")
@click.option("--new-key", metavar="NAME", help="Make a key for somebody, print it once, and serve nothing.")
def serve(new_key: str | None, **how: Any) -> None:
    """Serve every model of a store over HTTP."""
    if new_key is not None:
        print(importlib.import_module("serving.http.keys").new_key_text(new_key))
        return
    importlib.import_module("serving.app").serve(**how)
