"""What a run has to say about its own numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from jobs.common.data.images.base import Pixels
from jobs.common.models.classifiers.small import digits_16_net
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.poisons.crafting import Craft, Subject
from jobs.poison_frogs.poisons.search import Crafts
from jobs.poison_frogs.results import Results
from jobs.poison_frogs.targets.selection import Target
from jobs.poison_frogs.victims.retraining import Retraining
from jobs.poison_frogs.warnings import warnings_of
from service.planning.validation import validate

LABELS = torch.tensor([0] * 6 + [1] * 2)
IMAGES = Pixels("shades", ("dark", "bright"), torch.zeros(8, 1, 8, 8, dtype=torch.uint8), LABELS)
NETWORK = digits_16_net(classes=2, channels=1, side=8, size=16)
SHARED = Retraining(
    subject=Subject(NETWORK, IMAGES),
    rows=torch.arange(8),
    test=IMAGES,
    test_rows=torch.arange(8),
    task=(0, 1),
    features=torch.zeros(8, 16),
    test_features=torch.zeros(8, 16),
    victims={},
    defences={},
    poisons=torch.zeros(0, 1, 8, 8),
    poison_features=torch.zeros(0, 16),
    clean_heads={},
)
TARGET = Target(3, 0, 1, confidence=0.9, margin=2.0, neighbour=5.0, bases=(7, 6))
CRAFT = Craft(3, 7, torch.zeros(1, 8, 8), torch.zeros(16), 1.0, 1.0, 9, "iterations", change=2.0, largest=0.5)
HEAD, TUNED = {"kind": "head"}, {"kind": "fine_tune"}


def said(target: dict[str, Any], craft: dict[str, Any], shared: dict[str, Any], **changes: Any) -> list[str]:
    tree = {"pairs": [{"target": "dark", "base": "bright"}], "data": {"name": "digits"}, **changes}
    crafts = Crafts({(0, 0, 0): replace(CRAFT, **craft)}, together=tree.get("attack", {}).get("kind") == "polytope")
    params = validate(Params, tree, "params")
    return warnings_of(params, Results([replace(TARGET, **target)], crafts, (), replace(SHARED, **shared)))


def test_a_base_that_is_named_twice_is_told() -> None:
    attack = {"kind": "feature_collision", "epsilon": 0.03}
    setups = {"pairs": [], "setups": {"file": "setups.json", "first": 10, "size": 8}, "attack": attack}
    assert not any("more than once" in each for each in said({}, {}, {}, **setups))
    assert any(
        each.startswith("1 setups hold a base more than once") and each.endswith("[12]")
        for each in said({"bases": (7, 7), "group": 2}, {}, {}, **setups)
    )


def test_a_sound_run_has_nothing_to_say():
    assert said({}, {}, {}) == []


@pytest.mark.parametrize(
    ("target", "craft", "shared", "changes", "sentence"),
    [
        ({"margin": -0.5}, {}, {}, {}, "1 targets are misclassified without poison, which flatters success: [3]"),
        ({"neighbour": 0.0}, {}, {}, {}, "1 targets are copies of training images, which resist poisons: [3]"),
        ({}, {}, {}, {"poisons": [1, 2]}, "1 targets lack poisons, because cells failed"),
        ({}, {"stopped": "not finite"}, {}, {}, "1 crafts met values that are not finite"),
        ({}, {"change": 0.0}, {}, {}, "1 poisons are their bases unchanged: the steps are too small"),
        (
            {},
            {"change": 0.0},
            {},
            {"attack": {"kind": "polytope"}},
            "1 poisons are their bases unchanged: they have no",
        ),
        ({}, {"collision": 5.0}, {}, {}, "1 of 1 poisons are no nearer to their target"),
        ({}, {}, {"features": torch.zeros(8, 7)}, {}, "7 features for 8 training images: a head cannot fit"),
        ({}, {}, {}, {"victims": {"head": {**HEAD, "l2": 0.01}}}, "head: a penalty of 0.01 keeps a head from fitting"),
        ({}, {}, {}, {"victims": {"a": HEAD, "b": TUNED}}, "b: one victim for each target; with another seed"),
        ({}, {}, {}, {"defences": {"knn": {"kind": "deep_knn", "k": 3}}}, "knn: k = 3 can drop all images of bright"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_flatters_or_hides(target, craft, shared, changes, sentence):
    found = said(target, craft, shared, **changes)
    assert any(each.startswith(sentence) for each in found), found


def test_what_does_not_apply_is_not_said():
    assert said({}, {}, {}, victims={"b": TUNED}, repeats=2) == []
    assert said({}, {"collision": 9.0}, {}, attack={"kind": "polytope"}) == [
        "1 targets lack poisons, because cells failed: they are left out of the rates"
    ], "poisons that are made together need not be near, each by itself"
