"""What attacks take, as JSON schemas: for the metadata of a model, and for the page, which offers every option."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from jobs.common.attacks import ATTACKS, Attack

Json = dict[str, Any]
SCALARS = ("integer", "number", "boolean", "string")  # the types of parameters of a request
MOST_SEED = 2**63 - 1
SEED: Json = {
    "type": "integer",
    "minimum": 0,
    "maximum": MOST_SEED,
    "default": 0,
    "description": "of whatever is random in the attack",
}


def described(names: Iterable[str], more: Mapping[str, Json]) -> dict[str, Json]:
    """Attacks by name: norms, what each does, and the parameters of its own. more: those of a kind of model."""
    return {
        name: {
            "norms": list(ATTACKS[name].norms),
            "description": ATTACKS[name].model_fields["kind"].description or "",
            "parameters": {**_options(ATTACKS[name]), "seed": SEED, **more},
        }
        for name in names
    }


def _options(attack: type[Attack]) -> dict[str, Json]:
    """Schemas of the options of an attack that fit into a parameter of a request: its own, then those of all."""
    options = sorted(scalars_of(attack).items(), key=lambda each: each[0] in Attack.model_fields)
    return {name: option for name, option in options if name != "kind"}


def scalars_of(section: type[BaseModel]) -> dict[str, Json]:
    """Schemas of the fields of a section that fit into a parameter of a request, by name."""
    schema = section.model_json_schema()
    definitions = schema.get("$defs", {})
    plain = {name: _scalar(option, definitions) for name, option in schema["properties"].items()}
    return {name: option for name, option in plain.items() if option is not None}


def _scalar(option: Json, definitions: Mapping[str, Json]) -> Json | None:
    """Without alternatives: an option that may also be null is what it is otherwise. None if it is no scalar."""
    alternatives = [
        definitions[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
        for each in option.get("anyOf", [option])
    ]
    scalars = [each for each in alternatives if each.get("type") in SCALARS]
    if not scalars:
        return None
    described = {name: value for name, value in option.items() if name in ("default", "description")}
    return {**{name: value for name, value in scalars[0].items() if name != "title"}, **described}
