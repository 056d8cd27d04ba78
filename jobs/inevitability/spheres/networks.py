"""Networks that tell two concentric spheres apart, and their training on points that are drawn for every update."""

import torch
from torch import nn

from jobs.common.training import loop
from jobs.common.training.engine import Batch, Engine, EngineParams
from jobs.common.training.supervised import ClassifierStep
from jobs.inevitability.bounds.adversarial_spheres import INNER, points
from jobs.inevitability.spheres.sphere_params import SpheresParams


def build(n: int, width: int, hidden: int, seed: int) -> nn.Sequential:
    """Rectified layers: float32 (batch, n) -> logits (batch, 2) of the inner and the outer sphere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for size in (n, *[width] * (hidden - 1)):
            layers += [nn.Linear(size, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, 2))


class NewPoints:
    """Batches without end: half of the points on each sphere, none of them twice."""

    def __init__(self, params: SpheresParams, n: int, seed: int) -> None:
        self.params, self.n = params, n
        self._stream = torch.Generator().manual_seed(seed)

    def batch(self, index: int) -> Batch:
        """The next points, float32 (batch, n), and their labels: 0 of the inner sphere, 1 of the outer."""
        half = self.params.batch // 2
        both = [points(half, self.n, radius, self._stream) for radius in (INNER, self.params.radius)]
        return torch.cat(both), torch.arange(2).repeat_interleave(half)


def train(params: SpheresParams, n: int, seed: int, device: torch.device) -> nn.Sequential:
    """A trained network in evaluation mode. RunFailedError if its loss stops being finite."""
    network = build(n, params.width, params.layers, seed).to(device)
    plan = loop.Plan(params.updates, params.optimizer, report_every=params.updates, seed=lambda update: None)
    optimizer = params.optimizer.build([(1.0, list(network.parameters()))])
    step = ClassifierStep(Engine(network, EngineParams()))
    loop.train(step, optimizer, NewPoints(params, n, seed), plan)
    return network
