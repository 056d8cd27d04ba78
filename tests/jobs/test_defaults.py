"""A section that is given in part keeps the rest of its default, in all studies and wherever sections are read."""

import operator
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from jobs.common.params import ONCE
from service import catalog, spec
from service.params import Section
from service.planning import describe
from service.planning.validation import models_in, validate
from serving.http.settings import ServeSettings


def reachable(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A class and all sections below it, those of lists and mappings as well."""
    yield model
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            yield from reachable(inner)


def fields_of(default: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every field below a section or a mapping of sections, with its path and its value as JSON."""
    for name, value in default.items():
        yield (name,), value
        if isinstance(value, dict):
            yield from (((name, *path), inner) for path, inner in fields_of(value))


def sections_with_a_default() -> list[Any]:
    roots = [spec.JobSpec, ServeSettings, *(catalog.load(name).params for name in catalog.names())]
    models = {f"{model.__module__}.{model.__name__}": model for root in roots for model in reachable(root)}
    return [
        pytest.param(name, field, id=f"{place}.{name}")
        for place, model in sorted(models.items())
        for name, field in model.model_fields.items()
        if models_in(field.annotation) and field.default and isinstance(field.default, BaseModel | dict)
    ]


REPEATED = {  # lists in which the same value again means something, or changes nothing
    "channels", "kernels", "strides", "output_strides", "latent",  # of layers, one after another
    "averaging", "milestones",  # of optimizers
    "penalties", "colours",  # to choose from
    "pairs", "densities", "trusted",
}  # fmt: skip


def test_no_list_of_a_study_names_a_thing_twice() -> None:
    """What is listed twice would be computed, counted, and drawn twice, under one name."""
    lists = {
        f"{model.__module__}.{model.__name__}.{name}": field
        for study in catalog.names()
        for model in reachable(catalog.load(study).params)
        for name, field in model.model_fields.items()
        if any(
            get_origin(each) is tuple and ... in get_args(each)
            for each in (field.annotation, *get_args(field.annotation))
        )
        if name not in REPEATED
    }
    assert len(lists) > 30
    assert [place for place, field in lists.items() if ONCE not in field.metadata] == []


@pytest.mark.parametrize(("name", "field"), sections_with_a_default())
def test_a_field_given_at_its_default_changes_nothing(name: str, field: FieldInfo) -> None:
    alone: Any = create_model("Alone", __base__=Section, **{name: (field.annotation, field)})
    left_out = alone()
    for path, given in fields_of(left_out.model_dump(mode="json")[name]):
        for part in reversed(path):
            given = {part: given}
        assert validate(alone, {name: given}, "") == left_out, given


def test_the_walk_meets_what_studies_configure() -> None:
    places = [each.id for each in sections_with_a_default()]
    assert {
        "jobs.common.training.supervised.SupervisedParams.optimizer",
        "jobs.common.training.adversarial.training.TrainingParams.validation",
        "jobs.stacked_unets.training.TrainingParams.optimizer",
        "jobs.poison_frogs.victims.networks.FineTuneParams.optimizer",
        "jobs.poison_frogs.params.Params.victims",
        "serving.http.settings.Attacks.queue",
    } <= set(places)


SGD = {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


@pytest.mark.parametrize(
    ("job", "given", "place", "expected"),
    [
        ("loss_landscape", {"learning_rate": 0.05}, "network.training.optimizer", SGD | {"learning_rate": 0.05}),
        ("poison_frogs", {"momentum": 0.5}, "network.training.optimizer", SGD | {"momentum": 0.5}),
        ("free_training", {"weight_decay": 0}, "training.optimizer", SGD | {"weight_decay": 0, "nesterov": False}),
        ("free_training", {"restarts": 2}, "training.validation", {"steps": 10, "step_size": 0.25, "restarts": 2}),
        (
            "stacked_unets",
            {"nesterov": True},
            "training.optimizer",
            {"kind": "sgd", "momentum": 0.95, "nesterov": True},
        ),
        # another kind has the defaults of its own
        ("loss_landscape", {"kind": "adam"}, "network.training.optimizer", {"kind": "adam", "learning_rate": 1e-3}),
    ],
)
def test_a_part_of_a_section_leaves_the_rest(job: str, given: Any, place: str, expected: dict[str, Any]) -> None:
    required = {
        "free_training": {"threat": {"epsilon": 0.1}},
        "poison_frogs": {"pairs": [{"target": "1", "base": "2"}]},
    }
    for part in reversed(place.split(".")):
        given = {part: given}
    params = validate(catalog.load(job).params, required.get(job, {}) | given, "params")
    section = operator.attrgetter(place)(params).model_dump()
    assert {name: section[name] for name in expected} == expected


def test_the_catalogue_shows_what_holds() -> None:
    defaults = {each.name: each.default for each in describe.fields(catalog.load("stacked_unets").params)}
    assert defaults["training.optimizer.learning_rate"] == "default 0.0002, of other kinds 0.001"
    assert defaults["training.optimizer.kind"] == 'default "sgd"'
    defaults = {each.name: each.default for each in describe.fields(catalog.load("free_training").params)}
    assert defaults["training.validation.step_size"] == "default 0.25"
