"""Data that arrive inside installed Python packages."""

from importlib.util import find_spec
from pathlib import Path

from service.errors import InputError


def packaged(package: str, module: str, path: str, data_set: str) -> Path:
    """A file inside an installed package. InputError, saying what to install, if it is not there.

    package: what pip calls it; module: what Python calls it; path: of the file below the module.
    """
    file = packaged_folder(package, module, data_set) / path
    if not file.is_file():
        raise InputError(f"{data_set}: the installed package {package} does not hold {path}")
    return file


def packaged_folder(package: str, module: str, data_set: str) -> Path:
    """The folder of an installed package, which is not imported.

    package: what pip calls it; module: what Python calls it. InputError, saying what to install, if it is not there.
    """
    spec = find_spec(module)
    # a package of packages, as mpl_toolkits is, has folders but no file of its own
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise InputError(f"{data_set} needs the package {package}", hint=f"pip install {package}")
    return Path(folders[0])
