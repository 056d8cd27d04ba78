"""How fast radii of basins are measured, on one core: rays per second around a network of the swiss roll.

In turn, so that ratios hold on a loaded machine: one ray at a time in the manner of the released code of Huang et al.
2020 (100 points along each, more of them near the centre, the network evaluated at one after another), and all rays
together. Then rays on one worker and on two.
"""

import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.data.images import DataParams
from jobs.common.mean_loss.losses import cross_entropy
from jobs.common.mean_loss.samples import Samples, normalised
from jobs.common.models.classifier_params import ClassifierParams
from jobs.generalization.basins.basin_params import BasinParams
from jobs.generalization.basins.measurement import Subject, measure
from jobs.generalization.basins.radius import Radii, ScanParams, radii
from jobs.generalization.basins.rays import Rays, filters_of, rays
from jobs.generalization.basins.stacked_loss import StackedLoss
from service.cluster.connection import connect
from service.cluster.tasks import RayTasks
from service.run import Run
from service.spec import Resources
from service.store import open_store

UPDATES = 3000  # of Adam, until the network fits its 200 points
CUT = 1.0
POINTS = 100  # that the released code evaluates along a ray
PLAIN, TOGETHER = 20, 1000  # rays in a round
ROUNDS = 3
MAPPED = 40_000  # rays for one worker and for two: a minute and a half, of which two seconds cannot be shared
OPTIONS = {
    "hidden": [23, 16, 26, 32, 28, 31],
    "initialisation": "glorot_uniform",
    "single": True,
    "mean": [0.5, 0.5],
    "std": [1 / 36, 1 / 36],
}


def trained() -> tuple[nn.Module, Samples]:
    """The network of the paper, trained plainly, without its normalisation, and its points."""
    train, _ = DataParams(name="swiss_roll", train_limit=200).load_splits()
    network = ClassifierParams(name="fully_connected", options=OPTIONS).build(train, 0)
    network, samples = normalised(network, train, torch.arange(len(train)))
    optimizer = torch.optim.Adam(network.parameters(), 0.0125)
    for update in range(UPDATES):
        optimizer.param_groups[0]["lr"] = 0.0125 * (1 if update < 0.6 * UPDATES else 0.1)
        loss = functional.cross_entropy(network(samples.images), samples.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss of the network: {loss.item():.4f}")
    return network.eval().requires_grad_(False), samples


def plain_way(network: nn.Module, samples: Samples, directions: list[dict[str, Tensor]]) -> np.ndarray:
    """The losses (rays, POINTS) along rays: new weights, one pass, again and again."""
    weights = {name: tensor.clone() for name, tensor in network.named_parameters()}
    losses = np.zeros((len(directions), POINTS))
    with torch.no_grad():
        for ray, direction in enumerate(directions):
            for point, distance in enumerate(distances()):
                for name, parameter in network.named_parameters():
                    parameter.copy_(weights[name] + float(distance) * direction[name])
                losses[ray, point] = functional.cross_entropy(network(samples.images), samples.labels).item()
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])
    return losses


def distances() -> np.ndarray:
    """Of the points along a ray."""
    return np.linspace(0, 1, POINTS) ** 5


def together(loss: StackedLoss, drawn: Rays) -> Radii:
    """The radii of all rays."""

    def along(numbers: Tensor, distance: Tensor) -> Tensor:
        return loss.along(loss.centre[None], drawn.directions, numbers, distance)

    return radii(along, drawn.caps, [CUT], ScanParams())


def seconds(act: Callable[[], object]) -> float:
    """Of the processor."""
    began = time.process_time()
    act()
    return time.process_time() - began


def check_equal(losses: np.ndarray, measured: Radii) -> None:
    """Each radius lies between the two points of the plain way that the loss first passes the cut between."""
    for ray, along in enumerate(losses):
        radius = float(measured.radius[0, ray])
        past = np.flatnonzero(~(along < CUT))
        if not len(past):
            assert measured.censored[0, ray]
        elif measured.crossings[0, ray] == 1:
            low, high = distances()[past[0] - 1], distances()[past[0]]
            assert low * 0.999 <= radius <= high * 1.001, f"ray {ray}: {radius} is not in [{low}, {high}]"


def main() -> None:
    torch.set_num_threads(1)
    network, samples = trained()
    loss = StackedLoss(network, samples.images, samples.labels, cross_entropy)
    drawn = rays(filters_of(network), loss.centre, "filter", None, list(range(TOGETHER)), 1.0)
    directions = [
        {name: tensor[0] for name, tensor in loss.layout.unflatten(drawn.directions[ray : ray + 1]).items()}
        for ray in range(PLAIN)
    ]
    check_equal(plain_way(network, samples, directions), together(loss, drawn))
    plainly, all_at_once = [], []
    for _ in range(ROUNDS):
        plainly.append(PLAIN / seconds(lambda: plain_way(network, samples, directions)))
        all_at_once.append(TOGETHER / seconds(lambda: together(loss, drawn)))
    print(f"(a) one ray at a time, {POINTS} points each: {max(plainly):,.1f} radii/s")
    print(f"(b) together: {max(all_at_once):,.1f} radii/s, {max(all_at_once) / max(plainly):.1f} of (a)")
    two_workers(network, samples)


def two_workers(network: nn.Module, samples: Samples) -> None:
    """The same rays on one worker and on two, by the clock."""
    took: dict[int, float] = {}
    radius = []
    for workers in (1, 2):
        with connect("local", cpus=workers), tempfile.TemporaryDirectory() as folder:
            executor = RayTasks(Resources(), 0, lambda progress: None)
            warm = Subject("network", network, samples, BasinParams(rays=2 * workers, rays_per_cell=1))
            measure(warm, Run(open_store(folder) / "warm", 0, executor=executor))
            subject = Subject("network", network, samples, BasinParams(rays=MAPPED))
            run = Run(open_store(folder) / "timed", 0, executor=executor)
            began = time.perf_counter()
            radius.append(measure(subject, run).basins[0].radius)
            took[workers] = time.perf_counter() - began
    assert np.array_equal(*radius)
    print(f"{MAPPED} rays: {took[1]:.1f} s on one worker, {took[2]:.1f} s on two, {took[1] / took[2]:.2f} times")


if __name__ == "__main__":
    main()
