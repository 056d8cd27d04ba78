"""What `assay jobs` tells of parameters."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, JsonValue

from service import catalog, spec
from service.planning import describe


class Fresh(BaseModel):
    kind: Literal["fresh"] = Field("fresh", description="made anew")
    steps: int = Field(ge=1, description="how many")


class Fixed(BaseModel):
    kind: Literal["fixed"] = Field("fixed", description="made once")


class Size(BaseModel):
    size: int = Field(3, gt=0, description="how large")


class Params(BaseModel):
    rate: float = Field(0.1, gt=0, le=1, description="how fast")
    how: Literal["a", "b"] = Field("a", description="the way")
    clip: float | None = Field(None, description="a bound")
    sizes: tuple[Size, ...] = Field(min_length=1, description="what sizes")
    numbers: tuple[int, ...] = Field((), description="some numbers")
    options: dict[str, JsonValue] = Field({}, description="anything")
    data: Annotated[Fresh | Fixed, Field(discriminator="kind")] = Field(Fixed(), description="where from")
    inner: Size = Field(Size(), description="inside")
    maybe: Size | None = Field(None, description="perhaps")


def test_every_sort_of_field_is_told_in_words() -> None:
    found = {each.name + (f" ({each.only_if})" if each.only_if else ""): each for each in describe.fields(Params, "p.")}
    assert list(found) == [
        "p.rate", "p.how", "p.clip", "p.sizes", "p.sizes[].size", "p.numbers", "p.options", "p.data",
        "p.data.kind (kind: fresh)", "p.data.steps (kind: fresh)", "p.data.kind (kind: fixed)", "p.inner.size",
        "p.maybe", "p.maybe.size",
    ]  # fmt: skip
    told = [str(each).partition("\n")[0] for each in found.values()]
    assert told[:10] == [
        "p.rate: number; > 0, ≤ 1; default 0.1",
        'p.how: a | b; default "a"',
        "p.clip: number or null; default null",
        "p.sizes: list of sections; length ≥ 1; required",
        "p.sizes[].size: whole number; > 0; default 3",
        "p.numbers: list of whole numbers; default []",
        "p.options: mapping to anything; default {}",
        'p.data: section of kind fresh | fixed; default {"kind": "fixed"}',
        'p.data.kind: fresh; only with kind: fresh; default "fresh"',
        "p.data.steps: whole number; ≥ 1; only with kind: fresh; required",
    ]
    assert told[-2] == "p.maybe: section or null; default null"


@pytest.mark.parametrize("model", [spec.JobSpec, *(catalog.load(name).params for name in catalog.names())])
def test_everything_that_a_user_can_set_is_described(model: type[BaseModel]) -> None:
    for parameter in describe.fields(model):
        assert len(parameter.description) > 10, f"{parameter.name} has no description"
        assert not any(mark in parameter.type for mark in (".", "[", "Literal", "Union")), parameter
