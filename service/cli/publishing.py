"""The command that puts a network which is there already into the model store."""

import importlib
from typing import Any

import click

from service.cli.options import store_option
from service.errors import InputError, first_line
from service.planning import yaml_text
from service.store import open_store


@click.command()
@click.argument("build", metavar="MODULE:FUNCTION")
@click.argument("options", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--as", "name", required=True, metavar="NAME", help="Name of the model in the store.")
@store_option
def publish(build: str, options: tuple[str, ...], name: str, store: str) -> None:
    """Put a network that is there already into the model store, to serve and to study it.

    MODULE:FUNCTION is called with the options, and returns the network and its card, a CardDraft.
    """
    from torch import nn

    from service import models

    models.check_name(name)
    arguments = dict(map(_option, options))
    function = _function(build)
    try:
        built = function(**arguments)
    except TypeError as error:
        raise InputError(f"{build} refuses its options: {first_line(error)}") from error
    match built:
        case (nn.Module() as network, models.CardDraft() as draft):
            card = models.publish(open_store(store), name, dict(network.state_dict()), draft)
        case _:
            raise InputError(
                f"{build} must return a torch module and its CardDraft; it returns a {type(built).__name__}"
            )
    print(f"model {card.name}/{card.version}: {card.description}")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"an option must be NAME=VALUE; it is {text!r}")
    return name, yaml_text.parse(value)


def _function(path: str) -> Any:
    module, colon, name = path.partition(":")
    if not colon:
        raise InputError(f"what is published must be MODULE:FUNCTION; it is {path!r}")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"cannot import {path!r}: {first_line(error)}") from error
    if not callable(function):
        raise InputError(f"{path!r} cannot be called: it is a {type(function).__name__}")
    return function
