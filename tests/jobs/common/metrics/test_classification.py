"""Predictions of a set in batches, and accuracies of its classes."""

import torch
from torch import nn

from jobs.common.data.images.base import Pixels
from jobs.common.metrics.classification import accuracy_of_classes, predictions


def test_predictions_do_not_depend_on_the_batch() -> None:
    pixels = torch.randint(0, 256, (11, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = Pixels("noise", "abc", pixels, torch.arange(11) % 3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    expected = network(pixels.flatten(1).float() / 255).argmax(1)
    assert all(torch.equal(predictions(network, images, batch), expected) for batch in (1, 4, 11, 20))


def test_accuracies_of_classes_by_hand() -> None:
    predicted, labels = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 0, 0, 2, 1])
    assert accuracy_of_classes(predicted, labels, ("a", "b", "c", "d")) == [
        {"class": "a", "images": 3, "accuracy": 2 / 3},
        {"class": "b", "images": 1, "accuracy": 0.0},
        {"class": "c", "images": 1, "accuracy": 1.0},
        {"class": "d", "images": 0, "accuracy": None},
    ]
