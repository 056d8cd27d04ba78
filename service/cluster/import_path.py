"""What the workers of Ray import: modules of the folder where the command was given, and Assay from where it is.

Ray lets a worker look into that folder first. If it has a folder `service` of its own, each worker imports Assay's
before Ray looks there; with it come `jobs` and `serving`.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def extend() -> None:
    """Let the workers of an embedded Ray import from where the command was given, as the driver does."""
    paths = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def runtime_env() -> dict[str, Any]:
    """What a driver asks of Ray's workers. Nothing where no name is taken: they would start seconds later."""
    taken = [name for name in ("service", "serving") if Path(name).is_dir()]
    here = Path.cwd() == Path(__file__).parents[2]
    return {"worker_process_setup_hook": _import_assay_first()} if taken and not here else {}


def _import_assay_first() -> Callable[[], None]:
    """For workers: a function that travels as code, since it cannot be imported there."""

    def import_assay() -> None:
        import importlib
        import os
        import sys

        path = sys.path[:]
        sys.path[:] = [
            place
            for place in path
            if not os.path.isdir(os.path.join(place, "service"))
            or os.path.isfile(os.path.join(place, "service", "cluster", "import_path.py"))
        ]
        importlib.import_module("service")
        sys.path[:] = path

    return import_assay
