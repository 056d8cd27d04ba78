"""Attacks for the least perturbation against the libraries that people use: how near, and how fast at equal steps.

    DDN           L2, 100 steps
    FMN           Linf, L2, L1 and L0, 100 steps
    sigma-zero    L0, 300 steps

On networks trained here in seconds, naturally and against FGSM with a random start, on photo patches, MNIST and
digits. The settings of ours were chosen on the networks of patches and digits, with the first test images; on MNIST
nothing was chosen. One batch of images that are classified correctly, the last ones of each set, on one thread. A
step is a gradient for each image, at most: ours leaves an image alone that no longer comes nearer, and spends a few
passes forward at the end. The libraries take turns; distances are the same each time, times are CPU seconds, the
median of the turns (of foolbox, one turn). Every point is put to the network as it is before it counts. A library that
is not installed, or has no such attack, is left out; DDN without its rounding to 8 bits.

A row has the median distance over theirs; how many times as fast a step is, of the steps that both may take, which is
the whole run; and how many times as fast a step is that is taken, a gradient of an image, with all that ours does
before and after divided among them. At the end it is said which goals hold: distances of at most 1.00 times theirs, and
1.5 times as fast per step.
"""

import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
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
NEAR, FAST = 1.0, 1.5
"""the goals: distance over theirs, at most, and how many times as fast, at least"""

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


@dataclass(frozen=True)
class Row:
    """Ours beside one library."""

    network: str
    attack: str
    library: str
    median: float
    """of our distances"""
    distance: float
    """over theirs"""
    gradients: float
    """of ours, for an image"""
    milliseconds: float
    """of the library, for a step of the batch"""
    speed: float
    """how many times as fast ours is at equal steps"""
    taken: float
    """how many times as fast for each step that is taken"""

    def __str__(self) -> str:
        return (
            f"{self.network:26} {self.attack:15} {self.library:8} {self.median:8.4f} {self.distance:8.3f} "
            f"{self.milliseconds:9.2f} {self.speed:9.2f} {self.taken:7.2f} {self.gradients:9.0f}"
        )


HEADER = (
    f"{'network':26} {'attack':15} {'against':8} {'median':>8} {'distance':>8} {'ms a step':>9} {'as fast':>9} "
    f"{'taken':>7} {'gradients':>9}"
)


def contest(
    name: str, net: nn.Module, images: Tensor, labels: Tensor, attack: str, norm: Norm, steps: int
) -> list[Row]:
    n = images[0].numel()
    ball = Ball(norm, {"Linf": 1.0, "L2": n**0.5, "L1": float(n), "L0": float(n)}[norm])  # all that is found is in it
    made = ours(attack, norm, steps)
    others: dict[str, Run] = {}
    for library in (adv_lib, foolbox):
        try:
            run = library(attack, norm, steps)
        except ImportError as error:
            print(f"{library.__name__} is absent: {error}")
            continue
        if run is not None:
            others[library.__name__] = run
    seconds: dict[str, list[float]] = {library: [] for library in ("ours", *others)}
    least: dict[str, Tensor] = {}
    gradients = 0.0
    for turn in range(ROUNDS):
        began = time.process_time()
        result = made.run(net, images, labels, ball)
        seconds["ours"].append(time.process_time() - began)
        least["ours"] = distances(net, result.adversarials, images, labels, ball)
        gradients = float(result.gradients.double().mean())
        for library_name, run in others.items():
            if turn and library_name == "foolbox":
                continue
            began = time.process_time()
            points = run(net, images.clone(), labels.clone())
            seconds[library_name].append(time.process_time() - began)
            least[library_name] = distances(net, points, images, labels, ball)
    middle = {library: float(each.median()) for library, each in least.items()}
    spent = {library: median(each) for library, each in seconds.items()}
    rows = []
    for library in others:
        ratio = middle["ours"] / middle[library]
        speed = spent[library] / spent["ours"]
        taken = speed * gradients / steps
        milliseconds = 1000 * spent[library] / steps
        attack_name = f"{attack} {norm}"
        rows.append(Row(name, attack_name, library, middle["ours"], ratio, gradients, milliseconds, speed, taken))
        print(rows[-1], flush=True)
    return rows


def verdict(rows: list[Row], what: str, holds: Callable[[Row], bool]) -> None:
    """How many rows keep a goal, and which do not."""
    short = [f"{row.network}, {row.attack} against {row.library}" for row in rows if not holds(row)]
    named = f"; not {'; '.join(short)}" if 0 < len(short) < len(rows) / 2 else ""
    print(f"{what}: {len(rows) - len(short)} of {len(rows)} rows{named}")


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    print(HEADER, flush=True)
    for data, name, epsilon, updates in NETWORKS:
        net = trained(data, name, epsilon, updates)
        images, labels = classified_correctly(net, data)
        trained_how = f"{data}, against {epsilon:.2g}" if epsilon else f"{data}, naturally"
        for attack, norm, steps in CONTESTS:
            rows += contest(trained_how, net, images, labels, attack, norm, steps)
    verdict(rows, f"median distance at most {NEAR:.2f} times theirs", lambda row: row.distance <= NEAR)
    verdict(rows, f"at least {FAST} times as fast per step, at equal steps", lambda row: row.speed >= FAST)
    verdict(rows, f"at least {FAST} times as fast per step taken", lambda row: row.taken >= FAST)


if __name__ == "__main__":
    main()
