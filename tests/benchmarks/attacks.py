"""Attacks per second against the libraries that people use, at equal strength on the same network and images.

    PGD-20        random start, 20 steps of epsilon / 4
    APGD-100      cross entropy, one start
    Square-1000   1,000 windows
    AutoAttack    the standard ensemble, Square with 5,000 windows; ours has a fast version, too, which is not exact

All in L-infinity, in one batch, on one thread. The images are classified correctly and half of them are robust: a PGD
of 100 steps with 5 restarts does not succeed on them. The fewer images, the more it helps that our ensemble aims at
several classes in one pass; with many, all libraries wait for the same convolutions. The libraries take turns, and CPU
seconds are counted. Printed are the medians of a library and of ours, their ratio, how many samples are robust to each,
and how many verdicts differ from ours. Where a library has no attack of that strength, or is not installed, it is said
to be absent: foolbox has PGD alone, and the AutoAttack of adversarial-robustness-toolbox consists of other attacks.
Whole ensembles of many images are run with the released code of AutoAttack alone, which is what they are measured by.

At the end, what a user waits for on this machine, by the clock: the ensemble as a study computes it, a part of the
images in a process for each core, and the released code with a thread for each core.
"""

import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.attacks.apgd import APGD
from jobs.common.attacks.autoattack import AutoAttack
from jobs.common.attacks.base import Attack, Ball
from jobs.common.attacks.pgd import PGD
from jobs.common.attacks.square import Square
from jobs.common.data.images import DataParams
from jobs.common.models.classifiers import classifier

EPSILON = 4 / 255
RELEASED = ("ours", "ours_fast", "pyautoattack")
CONTESTS = (
    ("PGD-20", 50, 5, None),
    ("APGD-100", 50, 3, None),
    ("Square-1000", 50, 3, None),
    ("AutoAttack", 20, 1, None),
    ("AutoAttack", 50, 1, RELEASED),
    ("AutoAttack", 100, 1, RELEASED),
)
"""attack, images, rounds, libraries (None: all)"""
CORES = os.cpu_count() or 1
BY_THE_CLOCK = 50, 3
"""images, rounds"""
TRAINING_STEPS, TRAINING_BATCH = 250, 64

Run = Callable[[Tensor, Tensor], Tensor]  # images, labels -> adversarial images


def trained() -> nn.Module:
    """A colour network, trained against FGSM with a random start (Wong et al. 2020)."""
    torch.manual_seed(0)
    net = classifier("colour_net")
    data = DataParams(name="photo_patches").load("train")
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(TRAINING_STEPS):
        rows = torch.randint(len(data), (TRAINING_BATCH,))
        images, labels = data.images(rows), data.labels[rows]
        noise = ((torch.rand(images.shape) * 2 - 1) * EPSILON).requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(net(images + noise), labels), noise)
        noise = (noise.detach() + 1.25 * EPSILON * slope.sign()).clamp(-EPSILON, EPSILON)
        loss = functional.cross_entropy(net((images + noise).clamp(0, 1)), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval().requires_grad_(False)


def half_robust(net: nn.Module) -> tuple[Tensor, Tensor]:
    """As many images on which a strong PGD succeeds as such on which it does not, in turn."""
    data = DataParams(name="photo_patches").load("test")
    images, labels = data.images(torch.arange(1000)), data.labels[:1000]
    right = net(images).argmax(1) == labels
    result = PGD(steps=100, restarts=5).run(net, images, labels, Ball("Linf", EPSILON))
    robust = (~result.successful).nonzero().squeeze(1)
    weak = (result.successful & right).nonzero().squeeze(1)
    half = min(len(robust), len(weak))
    rows = torch.stack([robust[:half], weak[:half]], dim=1).flatten()
    return images[rows], labels[rows]


def ours(net: nn.Module) -> dict[str, Run]:
    attacks: dict[str, Attack] = {
        "PGD-20": PGD(steps=20, step_size=0.25),
        "APGD-100": APGD(),
        "Square-1000": Square(queries=1000),
        "AutoAttack": AutoAttack(),
    }
    ball = Ball("Linf", EPSILON)

    def run(attack: Attack) -> Run:
        return lambda images, labels: attack.run(net, images, labels, ball).adversarials

    return {name: run(attack) for name, attack in attacks.items()}


def ours_fast(net: nn.Module) -> dict[str, Run]:
    ball = Ball("Linf", EPSILON)
    return {"AutoAttack": lambda images, labels: AutoAttack(version="fast").run(net, images, labels, ball).adversarials}


def pyautoattack(net: nn.Module) -> dict[str, Run]:
    from pyautoattack import AutoAttack as Released
    from pyautoattack.autopgd_base import APGDAttack
    from pyautoattack.square import SquareAttack

    apgd = APGDAttack(net, n_iter=100, eps=EPSILON, device="cpu")
    square = SquareAttack(net, n_queries=1000, eps=EPSILON, resc_schedule=False, device="cpu")
    whole = Released(net, eps=EPSILON, seed=0)
    return {
        "APGD-100": apgd.perturb,
        "Square-1000": square.perturb,
        "AutoAttack": lambda images, labels: whole.run_standard_evaluation(images, labels)[0],
    }


def torchattacks(net: nn.Module) -> dict[str, Run]:
    import torchattacks as library

    def square(queries: int) -> Run:
        return library.Square(net, eps=EPSILON, n_queries=queries, resc_schedule=False)

    apgd = library.APGD(net, eps=EPSILON, steps=100)
    apgd_t = library.APGDT(net, eps=EPSILON, steps=100)
    fab_t = library.FAB(net, eps=EPSILON, steps=100, multi_targeted=True)
    return {
        "PGD-20": library.PGD(net, eps=EPSILON, alpha=EPSILON / 4, steps=20),
        "APGD-100": apgd,
        "Square-1000": square(1000),
        "AutoAttack": library.MultiAttack([apgd, apgd_t, fab_t, square(5000)]),
    }


def foolbox(net: nn.Module) -> dict[str, Run]:
    import foolbox as library

    model = library.PyTorchModel(net, bounds=(0, 1))
    pgd = library.attacks.LinfPGD(rel_stepsize=0.25, steps=20)
    return {"PGD-20": lambda images, labels: pgd(model, images, labels, epsilons=EPSILON)[1]}


def adversarial_robustness_toolbox(net: nn.Module) -> dict[str, Run]:
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(net, nn.CrossEntropyLoss(), (3, 32, 32), 10, clip_values=(0, 1), device_type="cpu")
    common = {"eps": EPSILON, "batch_size": 64, "verbose": False}
    pgd = evasion.ProjectedGradientDescentPyTorch(model, eps_step=EPSILON / 4, max_iter=20, num_random_init=1, **common)
    apgd = evasion.AutoProjectedGradientDescent(
        model, eps_step=2 * EPSILON, max_iter=100, nb_random_init=1, loss_type="cross_entropy", **common
    )
    square = evasion.SquareAttack(model, max_iter=1000, **common)

    def run(attack: Any) -> Run:
        return lambda images, labels: torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))

    return {"PGD-20": run(pgd), "APGD-100": run(apgd), "Square-1000": run(square)}


LIBRARIES = (ours, ours_fast, pyautoattack, torchattacks, foolbox, adversarial_robustness_toolbox)


def quietly(run: Run, images: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """CPU seconds and what came out, without what the library has to say."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.process_time()
        adversarials = run(images.clone(), labels.clone())
        return time.process_time() - began, adversarials


def by_the_clock(net: nn.Module, images: Tensor, labels: Tensor, rounds: int) -> None:
    """The ensemble in a process for each core, in turn with the released code with a thread for each."""
    released = pyautoattack(net)["AutoAttack"]
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn"), _one_thread) as pool:

        def in_parts(images: Tensor, labels: Tensor) -> Tensor:
            parts = pool.map(_attacked, [net] * CORES, images.chunk(CORES), labels.chunk(CORES))
            return torch.cat(list(parts))

        in_parts(images[:CORES], labels[:CORES])  # the processes have started
        torch.set_num_threads(CORES)
        for _ in range(rounds):
            spent, robust = [], []
            for run in (released, in_parts):
                torch.manual_seed(0)
                began = time.perf_counter()
                _, adversarials = quietly(run, images, labels)
                spent.append(time.perf_counter() - began)
                robust.append(net(adversarials).argmax(1) == labels)
            print(
                f"AutoAttack  {len(images):3} images on {CORES} cores: pyautoattack {spent[0]:6.2f} s by the clock, "
                f"ours {spent[1]:6.2f} s: {spent[0] / spent[1]:5.2f} times as fast; {int(robust[1].sum())} robust, "
                f"{int((robust[0] != robust[1]).sum())} other verdicts",
                flush=True,
            )
    torch.set_num_threads(1)


def _one_thread() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


def _attacked(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return ours(net)["AutoAttack"](images, labels)


def main() -> None:
    _one_thread()
    net = trained()
    all_images, all_labels = half_robust(net)
    runs: dict[str, dict[str, Run]] = {}
    for library in LIBRARIES:
        try:
            runs[library.__name__] = library(net)
        except ImportError as error:
            print(f"{library.__name__} is absent: {error}")
    for attack, count, rounds, libraries in CONTESTS:
        images, labels = all_images[:count], all_labels[:count]
        taking_part = [name for name in runs if libraries is None or name in libraries]
        having = {name: runs[name][attack] for name in taking_part if attack in runs[name]}
        seconds: dict[str, list[float]] = {name: [] for name in having}
        robust: dict[str, Tensor] = {}
        for round_ in range(rounds + (rounds > 1)):
            for name, run in having.items():
                torch.manual_seed(round_)
                spent, adversarials = quietly(run, images, labels)
                robust[name] = net(adversarials).argmax(1) == labels
                if round_ or rounds == 1:  # the first warms up
                    seconds[name].append(spent)
        for name, each in seconds.items():
            spent, own = median(each), median(seconds["ours"])
            differing = int((robust[name] != robust["ours"]).sum())
            print(
                f"{attack:11} {len(images):3} images {name:31} {spent:7.2f} s, ours {own:6.2f} s: {spent / own:5.2f} "
                f"times as fast; {int(robust[name].sum())} robust, {differing} other verdicts than ours",
                flush=True,
            )
        for name in (each for each in taking_part if each not in having):
            print(f"{attack:11} {len(images):3} images {name:31} absent")
    if "pyautoattack" in runs:
        count, rounds = BY_THE_CLOCK
        by_the_clock(net, all_images[:count], all_labels[:count], rounds)


if __name__ == "__main__":
    main()
