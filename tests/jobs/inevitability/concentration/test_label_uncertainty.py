"""Label uncertainty in closed form, on tables that can be checked by eye, and what is no table of probabilities."""

import pytest
import torch

from jobs.inevitability.concentration import label_uncertainty
from service.errors import InputError


def test_label_uncertainty() -> None:
    probabilities = torch.tensor(
        [
            [1.0, 0.0, 0.0],  # nobody doubts
            [0.5, 0.5, 0.0],  # a tie
            [0.6, 0.3, 0.1],
            [0.2, 0.7, 0.1],  # most people say something else
            [0.0, 0.0, 1.0],  # everybody does
        ]
    )
    values = label_uncertainty(probabilities, torch.zeros(5, dtype=torch.int64))
    assert values.tolist() == pytest.approx([0.0, 1.0, 0.7, 1.5, 2.0], abs=1e-6)


@pytest.mark.parametrize(
    ("probabilities", "labels", "sentence"),
    [
        ([[1.0], [1.0]], [0, 0], r"a row of two classes or more for each label; their shape is \(2, 1\), for 2 labels"),
        ([[0.5, 0.5]], [0, 1], r"their shape is \(1, 2\), for 2 labels"),
        ([[0.5, 0.5], [0.9, 0.3]], [0, 1], r"those of point 1 add up to 1.2, the least is 0.3"),
        ([[1.5, -0.5]], [0], r"those of point 0 add up to 1, the least is -0.5"),
        ([[float("nan"), 1.0]], [0], r"those of point 0 add up to nan"),
        ([[0.5, 0.5]], [2], r"labels must be classes 0 to 1, as many as there are probabilities; they are 2 to 2"),
    ],
)
def test_bad_probabilities(probabilities: list[list[float]], labels: list[int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        label_uncertainty(torch.tensor(probabilities), torch.tensor(labels))
