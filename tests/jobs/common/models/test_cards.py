"""Names of saved networks: made of their parts, and refused before anything is trained; the card of a classifier."""

from typing import Any

import pytest

from jobs.common.data.images import DataParams
from jobs.common.models.cards import PublishingParams, classifier_card
from jobs.common.models.classifier_params import ClassifierParams
from service.errors import SpecError
from service.planning.validation import validate


class Params(PublishingParams):
    parts: tuple[str, ...] = ("digits", "my.package:Wide_Net", "", "TRADES, beta 6")

    @property
    def name_parts(self) -> tuple[str, ...]:
        return self.parts


def test_the_default_name_is_made_of_parts() -> None:
    assert validate(Params, {}, "params").model_name == "digits-wide-net-trades-beta-6"
    assert validate(Params, {"publish_as": "mine.2"}, "params").model_name == "mine.2"
    assert validate(Params, {"parts": []}, "params").publish_as == "", "nothing is saved"
    with pytest.raises(SpecError, match="^params.publish_as must be left out where no network is trained"):
        validate(Params, {"parts": [], "publish_as": "mine"}, "params")


@pytest.mark.parametrize("fields", [{"publish_as": "My Model"}, {"publish_as": "a/b"}, {"parts": ["a" * 40, "b" * 40]}])
def test_a_name_that_the_store_refuses_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="^params.publish_as must be up to 63 lower-case letters, digits, dots and"):
        validate(Params, fields, "params")


def test_a_default_name_that_grows_too_long_says_what_it_is_made_of() -> None:
    with pytest.raises(SpecError, match="it is made of the names of data and network; give another one"):
        validate(Params, {"parts": ["a" * 40, "b" * 40]}, "params")


def test_the_card_of_a_classifier_says_what_serving_needs() -> None:
    images, network = DataParams().load("test"), ClassifierParams(options={"width": 4})
    card = classifier_card(
        "study", network, images, metrics={"clean": 0.9}, description=", 3 epochs", settings={"norm": "L2"}
    )
    assert card.architecture == "jobs.common.models.classifiers:digits_net"
    assert card.arguments == {"classes": 10, "channels": 1, "width": 4}
    assert card.inputs[0].shape == (-1, 1, 8, 8) and card.outputs[0].shape == (-1, 10)
    assert card.settings == {"classes": list("0123456789"), "resize": None, "norm": "L2"}
    assert card.description == "digits by digits_net, 3 epochs"
