"""The command line. Each command calls one function of the service and prints what it returned.

Modules that need torch or Ray are imported by the commands that use them, so that the others answer at once.

Exit codes: 0 done, 1 the run failed, 2 bad input or store, 3 some trials or cells failed, 130 cancelled.
"""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from service.cli import checking, publishing, remote, running, views
from service.cli.options import insecure_option, store_option
from service.cli.printing import TolerantStream
from service.cluster import embedded
from service.errors import AssayError, RunCancelledError, nearest

if TYPE_CHECKING:
    pass


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another
    exit_code = _run(words)
    embedded.leave_if_lost(exit_code)
    return exit_code


def _run(words: list[str]) -> int:
    try:
        assay.main(words, prog_name="assay", standalone_mode=False)
        sys.stdout.flush()
    except AssayError as error:
        if "--debug" in words:
            raise
        hint = f"\n       {error.hint}" if error.hint else ""
        print(f"assay: {error.message}{hint}", file=TolerantStream(sys.stderr), flush=True)
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


for _command in (*running.COMMANDS, checking.check, remote.submit, publishing.publish, *views.COMMANDS):
    assay.add_command(_command)


@assay.command()
@store_option
@click.option("--config", type=click.Path(), help="Limits and batching of the endpoints, as in configs/serve.yaml.")
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on (default 8000).")
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Port for Prometheus at 127.0.0.1 (default 8002).")
@insecure_option
@click.option("--without-keys", is_flag=True, help="Let everybody in, also on a public address.")
@click.option("--new-key", metavar="NAME", help="Make a key for somebody, print it once, and serve nothing.")
def serve(new_key: str | None, **how: Any) -> None:
    """Serve every model of a store over HTTP."""
    if new_key is not None:
        print(importlib.import_module("serving.http.keys").new_key_text(new_key))
        return
    importlib.import_module("serving.app").serve(**how)
