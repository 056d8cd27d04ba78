"""What the commands that talk to a cluster share: their options, and how they follow a run to its end.

Ray and torch are imported by the functions that use them, so that the other commands answer at once.
"""

import sys
from typing import TYPE_CHECKING

import click

from service import spec
from service.cli.options import Command, address_option, insecure_option
from service.cli.printing import print_json, print_rows
from service.cluster import address as address_of
from service.errors import RunCancelledError, RunFailedError
from service.formatting import duration

if TYPE_CHECKING:
    from service.cluster.node_types import NodeType
    from service.cluster.submission import Head


NO_SUCH_COMMAND = 127  # the exit code of a shell that finds no such command


def options(command: Command) -> Command:
    """What handing a run to a cluster may be told."""
    for option in (
        click.option(
            "--driver-cpus", type=click.FloatRange(0), default=0, help="Cores of the driver (0: on the head node)."
        ),
        click.option("--cluster", "growth", help="The file of `ray up` or KubeRay: what the cluster may grow to."),
        click.option("--detach", is_flag=True, help="Do not wait for the end."),
    ):
        command = option(command)
    return command


def head_at(address: str, insecure: bool = False) -> "Head":
    """Connect to a head node, and say what is remarkable about it."""
    from service.cluster.submission import Head

    head = Head(address, insecure)
    for note in head.notes:
        print(f"assay: {note}", file=sys.stderr)
    return head


def read_growth(path: str | None) -> "list[NodeType]":
    """The nodes that a cluster may grow by, from its file; none without one."""
    from service.cluster import node_types

    return node_types.read(path) if path else []


def follow(head: "Head", run_id: str, store: str, detach: bool) -> None:
    """Print what the driver says until it has ended, and end as it did. Ctrl-C leaves it running."""
    where = f"--address {head.address}"
    print(f"run {run_id} is submitted to {head.address}; `assay cancel {run_id} {where}` stops it", flush=True)
    if detach:
        print(f"  assay logs --follow {run_id} {where}\n  assay runs {where}")
        return
    try:
        for text in head.logs(run_id, follow=True):
            click.echo(text, nl=False)
    except KeyboardInterrupt:
        print(f"\nrun {run_id} goes on; `assay logs --follow {run_id} {where}` shows it")
        return
    state = head.run(run_id)
    if state.exit_code == NO_SUCH_COMMAND:
        raise RunFailedError(
            f"run {run_id} did not start: the head has no command `python`",
            hint="give `ray start` on the head a PATH that begins with the bin folder of Assay's environment",
        )
    if state.status == "lost":
        raise RunFailedError(
            f"run {run_id} lost its driver: {state.message}", hint=f"`assay resume {run_id} {where} --store {store}`"
        )
    if state.status == "cancelled":
        raise RunCancelledError(f"run {run_id} was cancelled", hint=f"`assay resume {run_id} {where} --store {store}`")
    if state.exit_code:
        sys.exit(state.exit_code)  # its own sentence has been printed


@click.command()
@click.argument("spec_file", metavar="SPEC")
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--id", "run_id", help="The id of the run and of the job (default: made from the time and the name).")
@address_option(required=True)
@insecure_option
@options
def submit(
    spec_file: str,
    overrides: tuple[str, ...],
    run_id: str | None,
    address: str,
    detach: bool,
    insecure: bool,
    growth: str | None,
    driver_cpus: float,
) -> None:
    """Validate a spec here and run it on a cluster: `assay submit SPEC --address http://head:8265`.

    The current folder goes along, without what .gitignore and .rayignore name.
    """
    place = address_of.parse(address)
    address_of.probe(place.host, place.port)
    from service.execution import runner

    job_spec = spec.load(spec_file, list(overrides))
    run_id = run_id or runner.new_run_id(job_spec.title)
    head = head_at(address, insecure)
    head.submit(job_spec, run_id, read_growth(growth), driver_cpus)
    follow(head, run_id, job_spec.store, detach)


def print_runs(address: str, as_json: bool) -> None:
    """`assay runs --address`: what Ray's table of jobs says of runs."""
    rows = [
        {"run": each.id, "status": each.status, "took": duration(each.seconds), "newest": each.message}
        for each in head_at(address, insecure=True).runs()
    ]
    print_json(rows) if as_json else print_rows(rows)


def print_log(address: str, run_name: str, follow: bool) -> None:
    """`assay logs --address`: what the driver of a run says."""
    head = head_at(address, insecure=True)
    for text in head.logs(head.run(run_name).id, follow):
        click.echo(text, nl=False)


def cancel(address: str, run_name: str) -> None:
    """`assay cancel --address`: ask a run to save and stop, and wait until it has."""
    head = head_at(address, insecure=True)
    state = head.run(run_name)
    if state.status not in ("pending", "running"):
        print(f"run {state.id} is not running: {state.status}")
        return
    print(f"run {state.id} is {head.cancel(state.id).status}; `assay resume` goes on later")
