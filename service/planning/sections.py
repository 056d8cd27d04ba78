"""The sections of a spec: which of them a field may hold, and what one is completed with that is given in part.

`optimizer: {learning_rate: 0.1}` changes one field of the optimizer that the study has by default, and no other. A
section of another `kind` than the default's is another thing: it has the defaults of its own class.
"""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Json = Any  # a value that JSON can hold


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The classes of a section, a list of sections, a choice among sections; not of a mapping, whose names are free."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not dict:
        for inner in get_args(annotation):
            yield from sections_in(inner)


def kinds(section: type[BaseModel]) -> tuple[str, ...]:
    """What its field `kind` may say; nothing if it has none."""
    field = section.model_fields.get("kind")
    return get_args(field.annotation) if field else ()


def becomes_another(whole: BaseModel, place: str, kind: Json) -> bool:
    """Whether the section at a dotted place is of another class where its field `kind` says this.

    What is known of all its fields by now says nothing about that class.
    """
    section: Any = whole
    annotation: Any = type(whole)
    for name in place.split("."):
        if isinstance(section, BaseModel) and name in type(section).model_fields:
            section, annotation = getattr(section, name), type(section).model_fields[name].annotation
        elif isinstance(section, dict):
            section, annotation = section.get(name), next(iter(get_args(annotation)[1:]), None)
        else:
            return False
    classes = [each for each in sections_in(annotation) if kind in kinds(each)]
    return isinstance(section, BaseModel) and bool(classes) and type(section) not in classes


def default_of(name: str, field: FieldInfo, default: BaseModel | None) -> Any:
    """What a field is if it is left out; None where that is not known before the others are, or it must be given.

    default: the section that it is a part of, as it is if all of it is left out; None: the class alone says.
    """
    if default is not None:
        return getattr(default, name)
    if field.is_required() or field.default_factory_takes_validated_data:
        return None
    return field.get_default(call_default_factory=True)


def completed(section: type[BaseModel], given: dict[str, Json], default: BaseModel | None = None) -> dict[str, Json]:
    """The fields that are given, and those that the default of a section sets to something else than its class does.

    default: what the whole section is if it is left out, of this class; None: its class alone says what fields are.
    """
    if default is not None:
        configured = default.model_fields_set | {"kind"}
        given = default.model_dump(mode="json", include=configured) | given
    fields = section.model_fields
    return {
        name: _completed(fields[name].annotation, value, default_of(name, fields[name], default))
        if name in fields
        else value
        for name, value in given.items()
    }


def _completed(annotation: Any, given: Json, default: Any) -> Json:
    """A value of a field, with all sections in it completed. default: what the field is if it is left out."""
    if isinstance(given, list):
        return [_completed(annotation, each, None) for each in given]
    if not isinstance(given, dict):
        return given
    if get_origin(annotation) is dict:
        known = default if isinstance(default, dict) else {}
        return {name: _completed(get_args(annotation)[1], value, known.get(name)) for name, value in given.items()}
    if isinstance(default, BaseModel) and given.get("kind", (kind := getattr(default, "kind", None))) == kind:
        return completed(type(default), given, default)
    sections = list(sections_in(annotation))
    sections = [each for each in sections if given.get("kind") in kinds(each)] or sections
    return completed(sections[0], given) if len(sections) == 1 else given
