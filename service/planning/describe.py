"""A class of parameters as a list of fields for people: name, type in words, default, bounds, meaning."""

import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from service.planning.sections import default_of, kinds, sections_in

_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥", "max_length": "length ≤"}
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "null",
    Any: "anything",
    JsonValue: "anything",
}


@dataclass(frozen=True)
class Parameter:
    """One field. name: dotted, as overrides take it. only_if: the kind of section that has it, e.g. "kind: fresh"."""

    name: str
    type: str
    default: str
    bounds: str
    description: str
    only_if: str = ""

    def __str__(self) -> str:
        facts = [self.type, self.bounds, self.only_if and f"only with {self.only_if}", self.default]
        return f"{self.name}: {'; '.join(filter(None, facts))}\n    {self.description}"


def fields(
    model: type[BaseModel], prefix: str = "", only_if: str = "", default: BaseModel | None = None
) -> Iterator[Parameter]:
    """Every field of a class, sections opened, in the order of the class.

    default: the section that holds if it is left out, which says what each of its fields is by default.
    """
    for name, field in model.model_fields.items():
        place, held = f"{prefix}{name}", default_of(name, field, default)
        sections = list(sections_in(field.annotation))
        if field.annotation not in sections:  # a section that is always there has nothing to say by itself
            kind = _kind_words(sections) or type_words(field.annotation)
            described = _default(field, held, default), _bounds(field), field.description or ""
            yield Parameter(place, kind, *described, only_if)
        inner = f"{place}[]." if _is_list(field.annotation) else f"{place}."
        for section in sections:
            configured = held if isinstance(held, section) else None
            yield from fields(section, inner, _condition(section, sections) or only_if, configured)


def type_words(annotation: Any) -> str:
    """A type as a user of YAML knows it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(arguments[0])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        arguments = tuple(each for each in arguments if each is not int or float not in arguments)
        return " or ".join(dict.fromkeys(map(type_words, arguments)))
    if origin in (tuple, list):
        return f"list of {_plural(type_words(arguments[0]))}"
    if origin is dict:
        return f"mapping to {type_words(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _plural(words: str) -> str:
    return words + "s" if words in ("section", "number", "whole number", "text") else words


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (tuple, list)


def _kind(section: type[BaseModel]) -> str | None:
    """What its field `kind` must say, if that is one word."""
    words = kinds(section)
    return words[0] if len(words) == 1 else None


def _kind_words(sections: list[type[BaseModel]]) -> str:
    kinds = [kind for kind in map(_kind, sections) if kind]
    return f"section of kind {' | '.join(kinds)}" if len(sections) > 1 and len(kinds) == len(sections) else ""


def _condition(section: type[BaseModel], sections: list[type[BaseModel]]) -> str:
    return f"kind: {_kind(section)}" if len(sections) > 1 and _kind(section) else ""


def _default(field: FieldInfo, held: Any, section: BaseModel | None) -> str:
    """held: what the field is by default. section: the default that it is a part of, if there is one."""
    if field.is_required() and section is None:
        return "required"
    text = f"default {_text(held)}"
    if section is None or len(kinds(type(section))) < 2 or field.is_required():
        return text
    own = field.get_default(call_default_factory=True)
    return (
        text if own == held or field is type(section).model_fields["kind"] else f"{text}, of other kinds {_text(own)}"
    )


def _text(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, default=str)


def _bounds(field: FieldInfo) -> str:
    bounds = []
    for rule in field.metadata:
        for attribute, sign in _SIGNS.items():
            if (bound := getattr(rule, attribute, None)) is not None:
                bounds.append(f"{sign} {bound:,}" if isinstance(bound, int) else f"{sign} {bound}")
    return ", ".join(bounds)
