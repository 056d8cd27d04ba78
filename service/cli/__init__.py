"""The command line: `assay`. One module for a few commands each, and how they print."""

from service.cli.commands import main

__all__ = ["main"]
