"""YAML as people mean it, read without surprises.

PyYAML keeps the last of two equal keys, reads `1e-3` as text and `no` as false. Here a duplicate key is an error,
numbers and booleans follow YAML 1.2 (so `no` is text, and a boolean field refuses it), anchors are refused, because a
few lines of nested aliases can stand for gigabytes, and so are tags, which make values that no field has.
"""

import re
from typing import Any

import yaml

from service.errors import SpecError, shown
from service.formatting import encodable

MAX_BYTES = 1 << 20
MAX_DIGITS = 308  # a longer whole number is beyond every field, and Python reads only some thousand digits

_SCALARS = {  # YAML 1.2 core schema: tag, pattern, first characters
    "null": (r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "int": (r"^[-+]?[0-9]+$", list("-+0123456789")),
    "float": (
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
        list("-+0123456789."),
    ),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise SpecError(f"line {line}: anchors and aliases are not allowed; write the value out")
        if tag := getattr(event, "tag", None):
            name = tag.replace("tag:yaml.org,2002:", "!!")
            raise SpecError(f"line {line}: tags such as {shown(name)} are not allowed; write a plain value")
        text = getattr(event, "value", "")
        if encodable(text) != text:  # "\ud800" is half a character
            raise SpecError(f"line {line}: {shown(encodable(text))} has characters that are not text")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(f"line {line}: a key must be a plain word")
            if key.value in lines:
                raise SpecError(f"line {line}: {key.value!r} is given twice (first on line {lines[key.value]})")
            lines[key.value] = line
        return {str(key.value): self.construct_object(value, deep=True) for key, value in node.value}


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would read as something else."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    """PyYAML reads 010 as octal."""
    if len(node.value) > MAX_DIGITS:
        line = node.start_mark.line + 1
        raise SpecError(f"line {line}: a number must have at most {MAX_DIGITS} digits; it has {len(node.value):,}")
    return int(node.value)


for _tag, (_pattern, _first) in _SCALARS.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)


def parse(text: str | bytes) -> Any:
    """The value of one YAML document. SpecError, one sentence with the line, if it cannot be read."""
    if len(text) > MAX_BYTES:
        raise SpecError(f"the YAML must have at most {MAX_BYTES:,} bytes; it has more")
    try:
        # _Loader is a SafeLoader: it builds plain values only
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SpecError(f"{line}not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"not valid YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise SpecError("not valid YAML: nested too deeply") from error
    except (ValueError, OverflowError) as error:
        raise SpecError(f"not valid YAML: {error}") from error


def dump(value: Any) -> str:
    """Plain values as YAML, keys in the order given."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110))
