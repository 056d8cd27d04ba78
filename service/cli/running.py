"""The commands that run a spec, go on with a run and stop one.

Modules that need torch or Ray are imported by the commands that use them, so that the others answer at once.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from service import spec
from service.cli import remote
from service.cli.options import Command, address_option, insecure_option, json_option, store_option
from service.cli.printing import TolerantStream, next_steps, print_json, print_verdict
from service.cluster import address as address_of
from service.errors import AssayError, InputError, RunCancelledError, RunFailedError, RunPartialError
from service.execution import history, layout, logs
from service.execution.records import RunRecord
from service.store import open_store

if TYPE_CHECKING:
    from service.execution.runner import Execution


def _execution_options(command: Command) -> Command:
    for option in (
        click.option("--raw", is_flag=True, help="Leave the output of Ray and of the jobs on the terminal."),
        insecure_option,
        click.option("--cpus", type=click.IntRange(1), help="Cores of the embedded Ray (default: all)."),
        click.option("--address", help="host:port of a Ray cluster (RAY_ADDRESS; default: an embedded Ray)."),
        click.option("--serial", is_flag=True, help="In this process, without Ray."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("spec_file", metavar="SPEC")
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--id", "run_id", help="The id of the run (default: made from the time and the name).")
@click.option("--again", is_flag=True, help="Go on with the run of this --id if it is there: for launchers that retry.")
@_execution_options
@json_option
def run(spec_file: str, overrides: tuple[str, ...], run_id: str | None, again: bool, as_json: bool, **how: Any) -> None:
    """Run a spec, with fields overridden: `assay run SPEC seed=3 params.training.lr=1e-3`."""
    if again and run_id is None:
        raise InputError("--again must have the --id of the run to go on with; without one each try is a new run")
    tree = spec.read(spec_file, list(overrides))

    def validated() -> spec.JobSpec:
        with spec.of_file(spec_file):
            return spec.build(tree)

    def act(execution: "Execution", say: Callable[[str], None]) -> tuple[RunRecord, str]:
        from service.execution import devices, runner

        job_spec = validated()
        if (notice := devices.unused_gpus(job_spec.resources.gpus)) is not None:
            say(f"assay: {notice}")
        store = open_store(job_spec.store)
        if again and run_id is not None and history.begun(layout.run(store, run_id), job_spec):
            return runner.resume(store, run_id, execution), job_spec.store
        return runner.start(job_spec, execution, run_id), job_spec.store

    _execute(spec.job_of(tree), as_json, validated, act, **how)


@click.command()
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
    growth: str | None,
    driver_cpus: float,
    **how: Any,
) -> None:
    """Go on with a run that was killed or cancelled, or try its failed trials again.

    With an --address that begins with http:// the run goes on there, as one that was submitted.
    """
    if address_of.is_dashboard(how["address"]):
        head = remote.head_at(how["address"], how["insecure"])
        head.resume(run_name, store, remote.read_growth(growth), driver_cpus)
        remote.follow(head, run_name, store, detach)
        return
    opened = open_store(store)
    folder = history.run_folder(opened, run_name)

    def act(execution: "Execution", say: Callable[[str], None]) -> tuple[RunRecord, str]:
        from service.execution import runner

        return runner.resume(opened, folder.name, execution), store

    _execute(spec.job_of(history.spec_tree(folder)), as_json, lambda: None, act, **how)


def _execute(
    job: str,
    as_json: bool,
    check: Callable[[], object],
    act: "Callable[[Execution, Callable[[str], None]], tuple[RunRecord, str]]",
    *,
    serial: bool,
    address: str | None,
    cpus: int | None,
    insecure: bool,
    raw: bool,
) -> None:
    """Carry out a run with live progress and all other output in its log. The verdict becomes the exit code.

    check: raises what is wrong with the input; asked where there is no Ray, of which nothing else would be said. act:
    validates, runs, and returns how it ended and the store; it is given what tells the user a sentence.
    """
    from service.cli import live

    with redirect_stdout(TolerantStream(sys.stdout)), redirect_stderr(TolerantStream(sys.stderr)):
        with logs.captured(enabled=not raw) as (log_file, terminal):
            console = Console(file=sys.stderr if as_json else TolerantStream(terminal))  # type: ignore[arg-type]
            with live.progress_for(console) as shown, ExitStack() as around:
                if not serial:
                    from service.cluster import start

                    try:
                        around.enter_context(start.connected(job, address, cpus, insecure))
                    except AssayError:
                        check()
                        raise
                from service.execution.runner import Execution

                state, store = act(Execution(serial, address, cpus, insecure, shown, log_file), shown.note)
        if as_json:
            print_json(state.model_dump(mode="json"))
        else:
            print_verdict(state, layout.run(open_store(store), state.id), next_steps(state, store))
        sys.stdout.flush()
    message = state.failure.message if state.failure else state.status
    match state.status:
        case "partial":
            raise RunPartialError(message, hint="`assay resume` tries what failed again")
        case "cancelled":
            raise RunCancelledError(message)
        case "failed":
            raise RunFailedError(message, hint="`assay show` and `assay logs` say more")


@click.command()
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


COMMANDS = (run, resume, cancel)
