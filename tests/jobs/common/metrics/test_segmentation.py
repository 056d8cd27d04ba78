"""The metrics against counting by hand and against torchmetrics."""

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from jobs.common.metrics.segmentation import IGNORE, confusion, scores

CLASSES = 5


def maps(seed: int, ignored: float = 0.1, absent: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    truth, predicted = torch.randint(0, CLASSES, (2, 3, 20, 17), generator=stream).to(torch.uint8)
    predicted = torch.where(torch.rand(truth.shape, generator=stream) < 0.6, truth, predicted)
    for label in absent:
        truth[truth == label] = (label + 1) % CLASSES
    truth[torch.rand(truth.shape, generator=stream) < ignored] = IGNORE
    return truth, predicted


@pytest.mark.parametrize("seed", range(3))
def test_against_brute_force(seed: int) -> None:
    truth, predicted = maps(seed)
    counts = [[0] * CLASSES for _ in range(CLASSES)]
    for true, said in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if true != IGNORE:
            counts[true][said] += 1
    matrix = confusion(truth, predicted, CLASSES)
    assert matrix.tolist() == counts
    found = scores(matrix)
    pixels = {
        label: ({i for i, t in enumerate(truth.flatten().tolist()) if t == label}, set()) for label in range(CLASSES)
    }
    for index, (true, said) in enumerate(zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True)):
        if true != IGNORE:
            pixels[said][1].add(index)
    expected = [len(true & said) / len(true | said) for true, said in pixels.values()]
    assert found.iou.tolist() == pytest.approx(expected)
    assert found.mean_iou == pytest.approx(sum(expected) / CLASSES)
    right = sum(counts[label][label] for label in range(CLASSES))
    assert found.pixel_accuracy == pytest.approx(right / int((truth != IGNORE).sum()))
    assert found.mean_accuracy == pytest.approx(
        sum(counts[label][label] / sum(counts[label]) for label in range(CLASSES)) / CLASSES
    )


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_against_torchmetrics(ignored: float) -> None:
    truth, predicted = maps(7, ignored)
    found = scores(confusion(truth, predicted, CLASSES))
    options = {"num_classes": CLASSES, "ignore_index": IGNORE}
    pair = predicted.long(), truth.long()
    each = MulticlassJaccardIndex(average="none", **options)(*pair)
    torch.testing.assert_close(found.iou.float(), each)
    assert found.mean_iou == pytest.approx(float(MulticlassJaccardIndex(average="macro", **options)(*pair)), abs=1e-6)
    micro, macro = (MulticlassAccuracy(average=average, **options)(*pair) for average in ("micro", "macro"))
    assert found.pixel_accuracy == pytest.approx(float(micro), abs=1e-6)
    assert found.mean_accuracy == pytest.approx(float(macro), abs=1e-6)


def test_an_absent_class_is_left_out_of_the_means_and_said() -> None:
    truth, predicted = maps(1, absent=(2,))
    assert bool((predicted == 2).any()), "it is predicted all the same"
    found = scores(confusion(truth, predicted, CLASSES))
    assert math.isnan(float(found.iou[2])) and found.present.tolist() == [True, True, False, True, True]
    present = [float(value) for label, value in enumerate(found.iou) if label != 2]
    assert found.mean_iou == pytest.approx(sum(present) / 4)
    row = found.rows(["a", "b", "c", "d", "e"])[2]
    assert row["iou"] is None and row["counted"] == "no: absent from the truth"


def test_only_ignored_pixels_have_no_scores() -> None:
    truth = torch.full((4, 4), IGNORE, dtype=torch.uint8)
    found = scores(confusion(truth, torch.zeros(4, 4, dtype=torch.uint8), 3))
    assert math.isnan(found.mean_iou) and math.isnan(found.pixel_accuracy)


def test_parts_add_up() -> None:
    truth, predicted = maps(5)
    parts = sum(confusion(one, other, CLASSES) for one, other in zip(truth, predicted, strict=True))
    assert torch.equal(torch.as_tensor(parts), confusion(truth, predicted, CLASSES))
