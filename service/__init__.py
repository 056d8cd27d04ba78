"""The job service: specs, runs, sweeps and stores. It knows Ray and knows no science.

A folder of the user's own may be named as a package of Assay's. Whatever is imported first has the name, so the others
are imported here, from beside this one.
"""

import importlib.util
import sys
from pathlib import Path


def _import_from_beside(name: str) -> None:
    folder = Path(__file__).parent.parent / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


for _name in ("jobs", "serving"):
    if _name not in sys.modules:
        _import_from_beside(_name)
