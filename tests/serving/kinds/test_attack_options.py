"""What the metadata says of the parameters of attacks is what requests may have."""

import math
from typing import Any

import pytest

from jobs.common.attacks import ATTACKS
from service.errors import InputError
from serving.kinds import KINDS
from serving.kinds.attack_options import MOST_SEED, described
from serving.kinds.image_attack import Perturbation

DESCRIBED = described(ATTACKS, {})
OPTIONS = [(attack, name) for attack in DESCRIBED for name in DESCRIBED[attack]["parameters"]]


def accepted(attack: str, name: str, value: Any) -> bool:
    try:
        Perturbation.parse({"attack": attack, "epsilon": 0.1, name: value})
    except InputError:
        return False
    return True


def beyond(schema: dict[str, Any]) -> list[Any]:
    """Values just outside of what a schema allows."""
    step = (lambda bound, to: bound + math.copysign(1, to)) if schema["type"] == "integer" else math.nextafter
    values = [step(schema[name], to) for name, to in (("minimum", -math.inf), ("maximum", math.inf)) if name in schema]
    values += [schema[name] for name in ("exclusiveMinimum", "exclusiveMaximum") if name in schema]
    return [int(each) if schema["type"] == "integer" else each for each in values if each != MOST_SEED]


@pytest.mark.parametrize(("attack", "name"), OPTIONS)
def test_a_request_may_have_what_is_described_and_no_more(attack: str, name: str) -> None:
    schema = DESCRIBED[attack]["parameters"][name]
    assert schema["description"] and schema["type"] in ("integer", "number", "boolean", "string")
    if schema.get("default") is not None:
        assert accepted(attack, name, schema["default"])
    allowed = [schema[bound] for bound in ("minimum", "maximum") if bound in schema] + schema.get("enum", [])
    assert all(accepted(attack, name, each) for each in allowed)
    assert not any(accepted(attack, name, each) for each in beyond(schema))
    if "enum" in schema:
        assert not accepted(attack, name, "no such thing")


def test_nothing_that_a_request_may_have_is_missing() -> None:
    for name, attack in ATTACKS.items():
        scalars = {option for option in attack.model_fields if option != "kind"}
        assert {*DESCRIBED[name]["parameters"]} == scalars | {"seed"}
        assert DESCRIBED[name]["norms"] == list(attack.norms) and DESCRIBED[name]["description"]


def test_a_kind_adds_its_own() -> None:
    by_task = {task: kind.attacks for task, kind in KINDS.items()}
    assert {*by_task["classification"]} == {*ATTACKS}
    assert {name for name in ATTACKS if ATTACKS[name].takes_maps} == {*by_task["segmentation"]}
    assert all("region" in each["parameters"] for each in by_task["segmentation"].values())
    assert by_task["thinking"] == {}
