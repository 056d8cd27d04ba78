"""What a section that is given in part is completed with."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from service.params import Section
from service.planning import sections
from service.planning.validation import validate


class Rate(Section):
    kind: Literal["constant", "falling"] = "constant"
    start: float = 1.0
    marks: tuple[int, ...] = ()


class Sgd(Section):
    kind: Literal["sgd"] = "sgd"
    rate: Rate = Rate()
    momentum: float = 0.0


class Adam(Section):
    kind: Literal["adam"] = "adam"
    rate: Rate = Rate(start=1e-3)


Rule = Annotated[Sgd | Adam, Field(discriminator="kind")]


class Training(Section):
    rule: Rule = Sgd(rate=Rate(kind="falling", start=0.5, marks=(3,)), momentum=0.9)
    others: dict[str, Rule] = {"first": Adam(rate=Rate(start=0.1))}
    several: tuple[Rule, ...] = (Sgd(momentum=0.5),)
    maybe: Sgd | None = None


@pytest.mark.parametrize(
    ("place", "kind", "another"),
    [
        ("rule", "adam", True),
        ("rule", "sgd", False),
        ("rule", "unknown", False),
        ("rule.rate", "constant", False),  # one class
        ("others.first", "sgd", True),
        ("others.first", "adam", False),
        ("others.second", "sgd", False),  # which is not there yet
        ("maybe", "sgd", False),
        ("several.0", "adam", False),
        ("nothing.rule", "adam", False),
    ],
)
def test_where_a_kind_makes_another_section(place: str, kind: str, another: bool) -> None:
    assert sections.becomes_another(Training(), place, kind) is another


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Training()),
        ({"rule": {}}, Training()),
        ({"rule": {"momentum": 0.1}}, Training(rule=Sgd(rate=Training().rule.rate, momentum=0.1))),
        (
            {"rule": {"rate": {"start": 2}}},
            Training(rule=Sgd(rate=Rate(kind="falling", start=2.0, marks=(3,)), momentum=0.9)),
        ),
        # another kind is another thing: what is left out is as its own class has it
        ({"rule": {"rate": {"kind": "constant"}}}, Training(rule=Sgd(rate=Rate(), momentum=0.9))),
        ({"rule": {"kind": "adam"}}, Training(rule=Adam())),
        ({"rule": {"kind": "adam", "rate": {"marks": [1]}}}, Training(rule=Adam(rate=Rate(start=1e-3, marks=(1,))))),
        # so is an entry of a list, and an entry of a mapping whose name the default does not have
        ({"several": [{"kind": "sgd"}]}, Training(several=(Sgd(),))),
        (
            {"others": {"first": {"rate": {"marks": [1]}}}},
            Training(others={"first": Adam(rate=Rate(start=0.1, marks=(1,)))}),
        ),
        ({"others": {"second": {"kind": "adam"}}}, Training(others={"second": Adam()})),
        ({"maybe": {"momentum": 0.2}}, Training(maybe=Sgd(momentum=0.2))),
    ],
)
def test_what_is_left_out_is_as_the_default_has_it(given: dict[str, Any], expected: Training) -> None:
    assert validate(Training, given, "") == expected
