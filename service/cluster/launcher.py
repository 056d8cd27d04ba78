"""Starts a run that was submitted: travels beside the spec, and is what the head's `python` is given.

It imports nothing but what every Python has, and Assay from where it is installed: the folder that travels along may
have folders of the same names, and the head's `python` may be another one than that of Ray.

    python assay-launcher.py run assay-spec.yaml …        as `assay run …`
"""

import os
import sys


def holds_another(place: str) -> bool:
    """Whether a place of the import path has a folder `service` that is not Assay's."""
    folder = os.path.join(place, "service")
    return os.path.isdir(folder) and not os.path.isfile(os.path.join(folder, "cluster", "launcher.py"))


def main() -> int:
    path = sys.path[:]
    sys.path[:] = [place for place in path if not holds_another(place)]
    try:
        from service.cli import commands
    except ImportError as error:
        print(
            f"assay: the head runs jobs with {sys.executable}, which cannot import Assay: {error}\n"
            "       install Assay there, or give `ray start` on the head a PATH that begins with the bin folder of the "
            "environment that has it",
            file=sys.stderr,
        )
        return 2
    sys.path[:] = path
    return commands.main()


if __name__ == "__main__":
    sys.exit(main())
