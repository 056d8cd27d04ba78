"""AutoAttack over a data set: batches, what is known afterwards, going on where it stopped, and refusing to."""

import pytest
import torch

from jobs.common.attacks.autoattack import AutoAttack
from jobs.common.attacks.base import Ball
from jobs.common.attacks.evaluation import Progress, evaluate
from service.errors import InputError
from tests.jobs.common.attacks.networks import predictions
from tests.jobs.common.attacks.trained import digits_net

ATTACK, BALL = AutoAttack(queries=20), Ball("Linf", 0.15)


@pytest.fixture(scope="module")
def kept() -> list[Progress]:
    """The progress of an evaluation of 40 samples in batches of 12, after every batch and part."""
    model, images, labels = digits_net()
    labels = labels.clone()
    labels[3] = (labels[3] + 1) % 10  # misclassified from the start
    kept: list[Progress] = []
    done = evaluate(model, images[:40], labels[:40], BALL, ATTACK, batch=12, keep=kept.append)
    assert done.progress == kept[-1]
    broken = predictions(model, done.adversarials) != labels[:40]
    assert broken.tolist() == [not robust for robust in done.progress.robust]
    return kept


def test_what_is_known_afterwards(kept: list[Progress]) -> None:
    progress = kept[-1]
    assert progress.finished == ("clean", "apgd_ce", "apgd_t", "fab_t", "square")
    accuracies = list(progress.accuracies.values())
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] == sum(progress.robust) / 40 and 0.1 < accuracies[-1] < 0.9
    assert progress.broken_by[3] == "clean" and progress.gradients[3] == 0 and progress.queries[3] == 1
    for robust, gradients in zip(progress.robust, progress.gradients, strict=True):
        assert not robust or gradients == 101 + 9 * 101 + 9 * 100
    batches = [each.batches for each in kept]
    assert batches[:5] == [1, 2, 3, 4, 0], "four batches of clean images, then the part is done"


@pytest.mark.parametrize("at", [0, 3, 5, 8, 11, -3, -1])
def test_going_on_gives_the_same(kept: list[Progress], at: int) -> None:
    model, images, labels = digits_net()
    labels = labels.clone()
    labels[3] = (labels[3] + 1) % 10
    saved = Progress.model_validate_json(kept[at].model_dump_json())
    assert saved == kept[at]
    again: list[Progress] = []
    done = evaluate(model, images[:40], labels[:40], BALL, ATTACK, batch=12, progress=saved, keep=again.append)
    assert done.progress == kept[-1]
    assert again == kept[at:][1:]


def test_refusing_to_go_on(kept: list[Progress]) -> None:
    model, images, labels = digits_net()
    labels = labels.clone()
    labels[3] = (labels[3] + 1) % 10
    images, labels = images[:40], labels[:40]

    def go_on(**change: object) -> None:
        given = {"images": images, "labels": labels, "ball": BALL, "attack": ATTACK, "batch": 12, "seed": 0, **change}
        evaluate(model, progress=kept[6], **given)  # type: ignore[arg-type]

    for change, sentence in (
        ({"batch": 13}, "was made with batch 12, but batch is 13"),
        ({"seed": 1}, "was made with seed 0, but seed is 1"),
        ({"ball": Ball("Linf", 0.14)}, "was made with epsilon 0.15, but epsilon is 0.14"),
        ({"ball": Ball("L2", 0.15)}, "was made with norm Linf, but norm is L2"),
        ({"attack": AutoAttack(version="plus", queries=20)}, "was made with version standard, but version is plus"),
        ({"attack": AutoAttack(queries=21)}, "was made with square_queries 20, but square_queries is 21"),
        ({"images": images.flip(0)}, "was made with data"),
        ({"labels": labels.flip(0)}, "was made with data"),
    ):
        with pytest.raises(InputError, match=sentence):
            go_on(**change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch is 0, but must be at least 1"):
        evaluate(model, images, labels, BALL, ATTACK, batch=0)
    with pytest.raises(InputError, match="damaged"):
        evaluate(model, images, labels, BALL, ATTACK, batch=12, progress=kept[6].model_copy(update={"queries": (0,)}))


def test_a_set_smaller_than_a_batch(kept: list[Progress]) -> None:
    model, images, labels = digits_net()
    done = evaluate(model, images[:5], labels[:5], BALL, ATTACK, batch=250)
    alone = ATTACK.run(model, images[:5], labels[:5], BALL)
    assert [not robust for robust in done.progress.robust] == alone.broken.tolist()
    assert torch.equal(done.adversarials[alone.broken], alone.adversarials[alone.broken])
