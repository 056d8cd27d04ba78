"""Rules are those of torch to the last bit, and load no compiler."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.common.training import rules

NAMES = [name for name in vars(rules) if name != "Optimizer" and isinstance(getattr(torch.optim, name, None), type)]


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_is_that_of_torch(name: str) -> None:
    options: dict[str, Any] = {"fused": True} if name in ("Adam", "AdamW", "SGD") else {}
    weights = [nn.Parameter(torch.linspace(-1, 1, 6).view(2, 3)) for _ in range(2)]
    optimizers = [kind([each], lr=0.1, **options) for kind, each in zip(_kinds(name), weights, strict=True)]
    for optimizer, weight in zip(optimizers, weights, strict=True):

        def loss(weight: nn.Parameter = weight, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = (3 * weight).sin().sum()
            value.backward()
            return value

        for _ in range(4):
            optimizer.step(loss)
    assert torch.equal(*weights) and not torch.equal(weights[0], torch.linspace(-1, 1, 6).view(2, 3))
    own, other = (optimizer.state_dict() for optimizer in optimizers)
    assert own["param_groups"] == other["param_groups"] and [*own["state"]] == [*other["state"]]
    assert isinstance(optimizers[0], getattr(torch.optim, name))


def _kinds(name: str) -> tuple[Any, Any]:
    return getattr(rules, name), getattr(torch.optim, name)


TRAINS = """
import sys
import torch
from jobs.common.training.optimizers import OptimizerParams
for kind in ("adam", "adamw", "sgd", "lbfgs", "rmsprop"):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = OptimizerParams(kind=kind, weight_decay=0.0).build([(1.0, [weight])])
    optimizer.zero_grad()
    weight.grad = torch.ones(2)
    optimizer.step((lambda: weight.sum()) if kind == "lbfgs" else None)
    optimizer.state_dict()
    assert weight[0] < 1, kind
print("torch._dynamo" in sys.modules)
"""


def test_a_process_that_trains_loads_no_compiler() -> None:
    """It takes longer than a short training."""
    done = subprocess.run([sys.executable, "-c", TRAINS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
