"""Attacks for the least perturbation against the libraries that people use: how near, and how fast at equal steps.

    DDN           L2, 100 steps
    FMN           Linf, L2, L1 and L0, 100 steps
    sigma-zero    L0, 300 steps

On networks trained here in seconds, naturally and against FGSM with a random start, on photo patches, MNIST and
digits. The settings of ours were chosen on the networks of patches and digits, with the first test images; on MNIST
nothing was chosen. One batch of images that are classified correctly, the last ones of each set, on one thread. A
step is a gradient for each image, at most: ours leaves an image alone that no longer comes nearer, and spends a few
passes forward at the end. The libraries take turns; distances are the same each time, times are CPU seconds, the
median of the turns. A library that is not installed, or has no such attack, is left out; without DDN's rounding to 8
bits.
"""

import sys
import time
import types
import warnings
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.attacks import DDN, FMN, Attack, Ball, SigmaZero
from jobs.common.attacks.ball import Norm
from jobs.common.data.images import DataParams
from jobs.common.models.classifiers import classifier

NETWORKS = (
    ("photo_patches", "colour_net", 0.0, 250),
    ("photo_patches", "colour_net", 4 / 255, 250),
    ("mnist_5k", "fast_mnist", 0.0, 400),
    ("mnist_5k", "fast_mnist", 0.1, 400),
    ("digits", "digits_net", 0.0, 400),
    ("digits", "digits_net", 0.1, 400),
)
"""data, network, epsilon in L-infinity that it is trained against (0: naturally), updates of the weights"""
CONTESTS: tuple[tuple[str, Norm, int], ...] = (
    ("DDN", "L2", 100),
    ("FMN", "L2", 100),
    ("FMN", "Linf", 100),
    ("FMN", "L1", 100),
    ("FMN", "L0", 100),
    ("sigma-zero", "L0", 300),
)
IMAGES, ROUNDS = 64, 3
EPSILONS = {"Linf": 0.03, "L2": 0.5, "L1": 5.0, "L0": 10}  # of no consequence: distances beyond are told as well

Run = Callable[[nn.Module, Tensor, Tensor], Tensor]  # network, images, labels -> adversarial images


def trained(data: str, name: str, epsilon: float, updates: int) -> nn.Module:
    torch.manual_seed(0)
    images = DataParams(name=data).load("train")
    net = classifier(name, classes=len(images.classes), channels=images.images(torch.arange(1)).shape[1])
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - update / updates)
        rows = torch.randint(len(images), (64,))
        points, labels = images.images(rows), images.labels[rows]
        if epsilon:
            noise = ((torch.rand(points.shape) * 2 - 1) * epsilon).requires_grad_()
            (slope,) = torch.autograd.grad(functional.cross_entropy(net(points + noise), labels), noise)
            noise = (noise.detach() + 1.25 * epsilon * slope.sign()).clamp(-epsilon, epsilon)
            points = (points + noise).clamp(0, 1)
        loss = functional.cross_entropy(net(points), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval().requires_grad_(False)


def classified_correctly(net: nn.Module, data: str) -> tuple[Tensor, Tensor]:
    images = DataParams(name=data).load("test")
    rows = torch.arange(len(images)).flip(0)[: 4 * IMAGES]
    points, labels = images.images(rows), images.labels[rows]
    right = net(points).argmax(1) == labels
    return points[right][:IMAGES], labels[right][:IMAGES]


def adv_lib(attack: str, norm: Norm, steps: int) -> Run | None:
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # draws curves in a browser; nothing is drawn here
    from adv_lib import attacks

    if attack == "DDN":
        return lambda net, images, labels: attacks.ddn(net, images, labels, steps=steps, levels=None)
    if attack == "sigma-zero":
        return lambda net, images, labels: attacks.sigma_zero(net, images, labels, num_steps=steps)
    order = {"Linf": float("inf"), "L2": 2, "L1": 1, "L0": 0}[norm]
    return lambda net, images, labels: attacks.fmn(net, images, labels, order, steps=steps)


def foolbox(attack: str, norm: Norm, steps: int) -> Run | None:
    import foolbox as library

    if attack == "sigma-zero":
        return None
    name = "DDNAttack" if attack == "DDN" else f"{'LInf' if norm == 'Linf' else norm}FMNAttack"
    made = getattr(library.attacks, name)(steps=steps)

    def run(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        points: Tensor = made(library.PyTorchModel(net, bounds=(0, 1), device="cpu"), images, labels, epsilons=None)[1]
        return points

    return run


def ours(attack: str, norm: Norm, steps: int) -> Attack:
    return {"DDN": DDN, "FMN": FMN, "sigma-zero": SigmaZero}[attack](steps=steps)


def distances(net: nn.Module, points: Tensor, images: Tensor, labels: Tensor, ball: Ball) -> Tensor:
    """float64 (batch,): inf where the class is still the right one."""
    reached = net(points).argmax(1) != labels
    return torch.where(reached, ball.distances(points, images), torch.inf)


def contest(net: nn.Module, images: Tensor, labels: Tensor, attack: str, norm: Norm, steps: int) -> None:
    ball, made = Ball(norm, EPSILONS[norm]), ours(attack, norm, steps)
    others: dict[str, Run] = {}
    for library in (adv_lib, foolbox):
        try:
            run = library(attack, norm, steps)
        except ImportError as error:
            print(f"{library.__name__} is absent: {error}")
            continue
        if run is not None:
            others[library.__name__] = run
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
    least: dict[str, Tensor] = {}
    passes = ""
    for _ in range(ROUNDS):
        began = time.process_time()
        result = made.run(net, images, labels, ball)
        seconds["ours"].append(time.process_time() - began)
        least["ours"] = result.minimum_distances
        work = [float(each.double().mean()) for each in (result.gradients, result.queries)]
        passes = f"{work[0]:.0f} gradients and {work[1]:.0f} passes forward for an image"
        for name, run in others.items():
            began = time.process_time()
            points = run(net, images.clone(), labels.clone())
            seconds[name].append(time.process_time() - began)
            least[name] = distances(net, points, images, labels, ball)
    middle = {name: float(each.median()) for name, each in least.items()}
    print(f"  {attack:10} {norm:4} ours {middle['ours']:8.4f}, {passes}", flush=True)
    for name in others:
        spent, own = median(seconds[name]), median(seconds["ours"])
        print(
            f"  {attack:10} {norm:4} {name:8} {middle[name]:8.4f}, ours {middle['ours'] / middle[name]:.3f} of it; "
            f"{1000 * spent / steps:6.2f} ms a step, ours {spent / own:5.2f} times as fast",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for data, name, epsilon, updates in NETWORKS:
        net = trained(data, name, epsilon, updates)
        images, labels = classified_correctly(net, data)
        kind = f"trained against {epsilon:.3g}" if epsilon else "trained naturally"
        print(f"{name} on {data}, {kind}: {len(images)} images", flush=True)
        for attack, norm, steps in CONTESTS:
            contest(net, images, labels, attack, norm, steps)


if __name__ == "__main__":
    main()
