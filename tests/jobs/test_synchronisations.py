"""Loops wait for a GPU when they report, not when they update: with twice the updates they wait as often.

Not followed is L-BFGS, whose line search decides by the loss where it looks next, and which torch has written with
hundreds of waits in each update; heads of poisoned networks learn by it, on the CPU.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from jobs.common.attacks import APGD, DDN, FAB, FMN, PGD, Attack, CarliniWagner, Norm, SigmaZero, SparseRS, Square
from jobs.common.training.adversarial.methods.fgsm_rs import RandomStartStep
from jobs.common.training.adversarial.methods.free import Free
from jobs.common.training.adversarial.methods.natural import Natural
from jobs.common.training.adversarial.methods.pgd import ProjectedGradient
from jobs.common.training.adversarial.methods.trades import Trades
from jobs.common.training.optimizers import OptimizerParams
from jobs.deep_thinking.data import FixedSet, FreshBatches
from jobs.sonification.optimisation.parameterisations import Fourier, LogMels, Waveform
from tests.jobs import loops
from tests.synchronisations import Synchronisations, followed

READ = "common/training/averages.py"
TRAININGS: dict[str, loops.Make] = {
    "sgd": partial(loops.supervised, OptimizerParams(kind="sgd", learning_rate=0.01, clip=1.0)),
    "adam": partial(loops.supervised, OptimizerParams(kind="adam", learning_rate=0.01)),
    "natural": partial(loops.adversarial, Natural(replay=2)),
    "free": partial(loops.adversarial, Free(replay=2)),
    "free, random starts": partial(loops.adversarial, Free(replay=2, delta="random", project=True)),
    "PGD training": partial(loops.adversarial, ProjectedGradient(steps=2)),
    "FGSM-RS": partial(loops.adversarial, RandomStartStep(stop=None)),
    "TRADES": partial(loops.adversarial, Trades(steps=2)),
    "thinking, fresh batches": partial(loops.thinking, FreshBatches(validation=8)),
    "thinking, a fixed set": partial(loops.thinking, FixedSet(instances=40, epochs=1)),
    "segmentation": loops.segmentation,
    "reverse objective": loops.reverse_objective,
    "recogniser": loops.recogniser,
    "victim": loops.victim,
}
COMPUTATIONS: dict[str, loops.Make] = {
    "sonified waveform": partial(loops.sonified, Waveform()),
    "sonified spectrum": partial(loops.sonified, Fourier()),
    "sonified log-mels": partial(loops.sonified, LogMels()),
    "fingerprints": loops.fingerprints,
    "patch": loops.patch,
    "surface": loops.surface,
    "rays": loops.rays,
    "learning coefficient": loops.learning_coefficient,
    "gradient matching": loops.brewed,
}

STEPS = 10
LEAVING = "what is done or is not finite leaves the batch, which then is smaller"
DATA = "how many boxes there are decides the shape of the loss"
EXCEPTIONS: dict[str, tuple[loops.Make, int, int, str]] = {  # with updates, the most waits of each, and why
    "polytope": (loops.enclosed, 3, 1, LEAVING),
    "collision": (loops.collided, 4, 2, LEAVING),
    "detector": (loops.detector, 4, 3, DATA),
}
ATTACKS: dict[str, tuple[Callable[[int], Attack], Norm, int]] = {  # of STEPS steps, and the most waits of a step
    # two: whether all that came back is finite, and whether samples are at their goal and leave
    "PGD": (lambda factor: PGD(steps=STEPS * factor), "Linf", 2),
    "PGD in L0": (lambda factor: PGD(steps=STEPS * factor), "L0", 2),
    "PGD in L1": (lambda factor: PGD(steps=STEPS * factor), "L1", 2),
    "APGD": (lambda factor: APGD(steps=STEPS * factor), "Linf", 2),
    "APGD in L2": (lambda factor: APGD(steps=STEPS * factor), "L2", 2),
    "Square": (lambda factor: Square(queries=STEPS * factor), "Linf", 2),
    "sparse RS": (lambda factor: SparseRS(queries=STEPS * factor), "L0", 2),
    "Carlini and Wagner": (lambda factor: CarliniWagner(steps=STEPS * factor, binary_search_steps=1), "L2", 2),
    # and one where a window is accepted in L2, or for how many coordinates are moved in L1
    "Square in L2": (lambda factor: Square(queries=STEPS * factor), "L2", 3),
    "APGD in L1": (lambda factor: APGD(steps=STEPS * factor), "L1", 3),
    # and one for what comes nearer
    "DDN": (lambda factor: DDN(steps=STEPS * factor), "L2", 3),
    "FMN": (lambda factor: FMN(steps=STEPS * factor), "Linf", 3),
    "FMN in L0": (lambda factor: FMN(steps=STEPS * factor), "L0", 4),
    "sigma-zero": (lambda factor: SigmaZero(steps=STEPS * factor), "L0", 6),
    # and Newton's steps, which end where they are exact
    "FMN in L1": (lambda factor: FMN(steps=STEPS * factor), "L1", 9),
    "FAB": (lambda factor: FAB(steps=STEPS * factor, targets=1), "Linf", 12),
    "FAB in L1": (lambda factor: FAB(steps=STEPS * factor, targets=1), "L1", 9),
}


@pytest.fixture
def waits(make_run: Any) -> Callable[..., Synchronisations]:
    """The waits of a loop with a factor."""

    def count(make: loops.Make, factor: int, **options: Any) -> Synchronisations:
        torch.manual_seed(0)
        loop = make(factor, make_run(f"trial-{factor}-{len(options)}"), **options)
        with followed(loop.on_device) as found:
            loop.call()
        return found

    return count


def same(one: Synchronisations, other: Synchronisations) -> bool:
    if one.lines != other.lines:
        print(f"once:\n{one}\ntwice:\n{other}")
    return one.lines == other.lines


@pytest.mark.parametrize("name", TRAININGS)
def test_training_waits_for_its_reports_alone(name: str, waits: Any) -> None:
    once, twice = waits(TRAININGS[name], 1), waits(TRAININGS[name], 2)
    assert same(once, twice)
    assert sum(count for line, count in once.lines.items() if line.startswith(READ)) == 2, "once a report"


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_computations_wait_at_their_ends_alone(name: str, waits: Any) -> None:
    """Whatever the steps of an optimisation, the images of a point, the rays or the draws of a chain."""
    assert same(waits(COMPUTATIONS[name], 1), waits(COMPUTATIONS[name], 2))


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_what_has_to_look_at_numbers_looks_seldom(name: str, waits: Any) -> None:
    make, updates, most, _ = EXCEPTIONS[name]
    once, twice = waits(make, 1), waits(make, 2)
    assert twice.count - once.count <= most * updates, f"\n{once}\ntwice:\n{twice}"


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_wait_a_few_times_a_step_however_many_images(name: str, waits: Any) -> None:
    attack, norm, most = ATTACKS[name]
    make = partial(loops.attacked, attack, norm)
    once, twice, wide = waits(make, 1), waits(make, 2), waits(make, 1, images=12)
    assert twice.count - once.count <= most * STEPS, f"\n{once}\ntwice:\n{twice}"
    assert wide.count <= 1.2 * once.count + most, f"\n{once}\nof twice the images:\n{wide}"
