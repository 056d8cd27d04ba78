"""Names and import paths in a spec."""

import pytest

from jobs.common.imports import resolve
from service.errors import AssayError, InputError, UnknownNameError

BUILTINS = {"apple": dict, "pear": list}


def test_builtin_and_import_path() -> None:
    assert resolve("pear", BUILTINS, "fruit") is list
    assert resolve("collections:OrderedDict", BUILTINS, "fruit").__name__ == "OrderedDict"
    assert resolve("plum", {"plum": "collections:OrderedDict"}, "fruit").__name__ == "OrderedDict"


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("aple", UnknownNameError, "unknown fruit 'aple' (did you mean 'apple'?)"),
        ("no.such.module:x", InputError, "fruit 'no.such.module:x': cannot import 'no.such.module'"),
        ("os:nothing", InputError, "'os' has no 'nothing'"),
        ("os:sep", InputError, "cannot be called: it is a str"),
        (":x", InputError, "cannot import ''"),
        ("os:", InputError, "'os' has no ''"),
    ],
)
def test_names_that_lead_nowhere(name: str, kind: type[AssayError], sentence: str) -> None:
    with pytest.raises(kind) as caught:
        resolve(name, BUILTINS, "fruit")
    assert sentence in str(caught.value)
