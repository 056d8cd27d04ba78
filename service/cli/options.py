"""Options that several commands have."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

DEFAULT_STORE = "assay-store"

Command = TypeVar("Command", bound=Callable[..., Any])


def store_option(command: Command) -> Command:
    help = f"Folder or URI of the store (ASSAY_STORE; default {DEFAULT_STORE})."
    return click.option("--store", default=DEFAULT_STORE, envvar="ASSAY_STORE", help=help)(command)


def insecure_option(command: Command) -> Command:
    help = "Also with a Ray that asks for no token: an embedded one, or a cluster at a public address."
    return click.option("--insecure", is_flag=True, help=help)(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def address_option(required: bool = False) -> Callable[[Command], Command]:
    help = "A cluster's dashboard, such as http://head:8265: ask its table of jobs" + (
        "." if required else ", not the store."
    )
    return click.option("--address", required=required, help=help)
