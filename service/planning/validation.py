"""Plain values -> strict, frozen objects; and what is wrong with them, as one sentence that names the field."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import FieldError, SpecError, nearest, shown
from service.planning.sections import Json, completed

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], value: Json, where: str) -> Model:
    """Plain values -> `model`, strictly; what a section leaves out is as the default of its field has it.

    Raises SpecError about the first thing wrong, in one sentence.
    """
    try:
        if isinstance(value, dict):
            value = completed(model, value)
        # strict JSON mode: lists become tuples and ints may stand for floats, but "3" never becomes 3
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise _explain(error, model, value, where) from error
    except (TypeError, ValueError) as error:
        raise SpecError(f"{where or 'spec'}: {error}") from error
    except RecursionError as error:
        raise SpecError(f"{where or 'spec'}: nested too deeply") from error


def _explain(error: ValidationError, model: type[BaseModel], value: Json, where: str) -> SpecError:
    # a union reports each of its branches: the deepest complaint is about the branch that the user meant
    first = max(error.errors(include_url=False), key=lambda e: (e["type"] == "extra_forbidden", len(e["loc"])))
    path = _plain_path(value, first["loc"])
    dotted = ".".join([where] * bool(where) + [str(part) for part in path]) or "spec"
    given, context = first.get("input"), first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            known = _fields_at(model, first["loc"][:-1])
            return SpecError(f"{dotted}: unknown field", hint=nearest(str(path[-1]), known))
        case "missing":
            return SpecError(f"{dotted}: missing")
        case "value_error" if isinstance(wrong := context["error"], FieldError):
            place = wrong.field if dotted == "spec" else f"{dotted}.{wrong.field}".removesuffix(".")
            return FieldError(place, wrong.requirement, wrong.value, wrong.hint)
        case "value_error":
            return SpecError(f"{dotted}: {context['error']}")
    return FieldError(dotted, _requirement(first["type"], context, first["msg"]), given)


def _requirement(kind: str, context: dict[str, Any], message: str) -> str:
    """What a value must be, from one of pydantic's own complaints."""
    match kind:
        case "greater_than":
            return f"be above {shown(context['gt'])}"
        case "greater_than_equal":
            return f"be at least {shown(context['ge'])}"
        case "less_than":
            return f"be below {shown(context['lt'])}"
        case "less_than_equal":
            return f"be at most {shown(context['le'])}"
        case "int_type" | "int_from_float" | "int_parsing":
            return "be a whole number"
        case "float_type" | "float_parsing":
            return "be a number"
        case "finite_number":
            return "be a finite number"
        case "bool_type":
            return "be true or false"
        case "string_type":
            return "be text"
        case "tuple_type" | "list_type":
            return "be a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "be a group of fields"
        case "literal_error":
            return f"be {context['expected']}"
        case "union_tag_invalid":
            return f"have {context['discriminator']} {context['expected_tags']}"
        case "string_too_short" | "too_short":
            return f"have at least {context['min_length']} {_units(kind)}"
        case "string_too_long" | "too_long":
            return f"have at most {context['max_length']} {_units(kind)}"
    return f"satisfy: {message[0].lower()}{message[1:]}"


def _units(kind: str) -> str:
    return "characters" if kind.startswith("string") else "entries"


def _plain_path(value: Json, loc: tuple[int | str, ...]) -> list[int | str]:
    """The location without the names that pydantic adds for branches of unions."""
    path: list[int | str] = []
    for depth, part in enumerate(loc):
        last = depth == len(loc) - 1
        if isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        elif not (last and isinstance(value, dict)) or not isinstance(part, str):
            continue
        path.append(part)
    return path


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The names of the fields that the model has at a location."""
    models: list[type[BaseModel]] = [model]
    for part in loc:
        inner: list[type[BaseModel]] = []
        for candidate in models:
            if isinstance(part, str) and part in candidate.model_fields:
                inner += models_in(candidate.model_fields[part].annotation)
            else:
                inner.append(candidate)
        models = inner
    return sorted({name for candidate in models for name in candidate.model_fields})


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every pydantic model named in a type such as `tuple[Grid, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner = getattr(annotation, "__args__", ())
    return [model for part in inner for model in models_in(part)]
