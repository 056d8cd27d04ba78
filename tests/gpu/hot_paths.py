"""All hot paths of the studies, and how fast they are."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from jobs.common.attacks import APGD, PGD, Attack, AutoAttack, Square
from jobs.common.models.classifiers import classifier
from jobs.stacked_unets.networks import segmenter
from service.execution.trials.trial import set_numerics
from service.spec import Resources
from tests.gpu.evaluation_paths import answered, attacked, landscape, patch, poisons, rays
from tests.gpu.hot_path import HotPath, LeftOutError, Way
from tests.gpu.machine import Machine
from tests.gpu.training_paths import Compiled, deep_thinking, free_training, segmentation_training

COMPILED: tuple[Compiled, ...] = ("kernels", "graphs")


def all_paths(machine: Machine) -> Iterator[tuple[str, Callable[[], HotPath]]]:
    """Each is made when it is asked for, so that one that fails does not take the others with it."""
    wide, small = ("wide_resnet", {"depth": 8, "width": 1}), ("cifar_resnet", {"blocks": [1], "first": 8})
    paper = ("wide_resnet", {"depth": 32, "width": 10})
    yield "free training, WRN-32-10", lambda: free_training(machine, *(wide if machine.dry else paper))
    residual = small if machine.dry else ("preactivation_resnet18", {})
    yield "free training, ResNet-18", lambda: free_training(machine, *residual)
    yield "deep thinking", lambda: deep_thinking(machine)
    yield "training of SUNet-64", lambda: segmentation_training(machine)
    yield "loss landscape", lambda: landscape(machine, *residual)
    queries = 5 if machine.dry else 100
    attacks: dict[str, Attack] = {
        "PGD": PGD(steps=2 if machine.dry else 20),
        "APGD": APGD(steps=2 if machine.dry else 20),
        "Square": Square(queries=queries),
        "AutoAttack": AutoAttack(queries=queries),
    }
    for name, attack in attacks.items():
        yield name, lambda name=name, attack=attack: attacked(machine, name, attack, *residual)
    yield "poison crafting", lambda: poisons(machine, *residual)
    yield (
        "classifier endpoint",
        lambda: answered(machine, classifier(residual[0], classes=10, channels=3, **residual[1]), 32),
    )
    sunet, side = ("sunet_tiny", 32) if machine.dry else ("sunet64", 512)
    yield "segmentation endpoint", lambda: answered(machine, segmenter(sunet, classes=21), side)
    yield "rays of a basin", lambda: rays(machine)
    yield "patch optimisation", lambda: patch(machine)
    for compiled in COMPILED:
        yield (
            f"free training, ResNet-18, {compiled}",
            lambda compiled=compiled: free_training(machine, *residual, compiled),
        )
        yield f"deep thinking, {compiled}", lambda compiled=compiled: deep_thinking(machine, compiled)


@dataclass(frozen=True)
class Throughput:
    """Samples a second of a path, of its bound and of the plain way."""

    name: str
    ours: float = math.nan
    bound: float = math.nan
    plain: float = math.nan
    goal: float = math.nan
    note: str = ""
    """why it is not measured here, where nothing is wrong"""
    problem: str = ""

    @property
    def of_bound(self) -> float:
        return self.ours / self.bound

    @property
    def of_plain(self) -> float:
        return self.ours / self.plain


def _in_mode(way: Way, mode: str) -> Way:
    """A trial asks torch for results that are the same twice, where it has them; the bound and the plain way do not."""

    def act() -> None:
        before = torch.get_deterministic_debug_mode()
        torch.set_deterministic_debug_mode(mode)
        try:
            way()
        finally:
            torch.set_deterministic_debug_mode(before)

    return act


def measured(machine: Machine, left: Callable[[], float], only: Sequence[str] | None = None) -> list[Throughput]:
    """left: the seconds that are left; when there are none the rest is left out. only: names of paths; none: all."""
    set_numerics(Resources())
    results = []
    for name, make in all_paths(machine):
        if only is not None and name not in only:
            continue
        if left() <= 0:
            results.append(Throughput(name, problem="left out: there was no time left"))
            continue
        try:
            path = make()
            ways = {"ours": path.ours, "bound": path.bound, **({} if path.plain is None else {"plain": path.plain})}
            ways = {each: _in_mode(way, "warn" if each == "ours" else "default") for each, way in ways.items()}
            took = machine.seconds(ways, rounds=1 if machine.dry else 3)
            samples = {"ours": path.samples, "bound": path.bound_samples, "plain": path.plain_samples}
            rates = {each: samples[each] / seconds for each, seconds in took.items()}
            results.append(Throughput(name, **rates, goal=path.goal))
        except LeftOutError as reason:
            results.append(Throughput(name, note=str(reason)))
        except Exception as error:
            results.append(Throughput(name, problem=f"{type(error).__name__}: {error}"))
        print(results[-1], flush=True)
        if not machine.dry:
            torch.cuda.empty_cache()
    return results
