"""Every study's smallest spec: the same on the GPU as on the CPU within tolerances, twice the same, and killed.

That is in float32 throughout, without TF32; some are computed in other ways besides. A trial is computed as the serial
runner does it, without its drivers' files. What is compared are its metrics, the numbers of its tables, and the weights
of its models. Seconds are left out.
"""

import contextlib
import hashlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jobs.common.models.classifiers import classifier
from service import catalog, models, spec
from service.execution.checkpoints import decode
from service.execution.fan_out.mapping import InProcess
from service.execution.trials.trial import perform
from service.planning import plan
from service.run import Run
from service.store import Folder, open_store
from tests.gpu.machine import Machine
from tests.jobs.shared import draft

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIGS = Path(__file__).parents[2] / "configs"
FLOAT32 = ("resources.tf32=false",)
LEARNT = "params.network.training"

STUDIES: dict[str, tuple[str, list[str]]] = {
    "copyright_attack": (
        "copyright_attack/small.yaml",
        [
            *("params.data.seconds=5", "params.data.enrolled=2", "params.data.others=2", "params.seconds=3"),
            *("params.songs=2", "params.attacks.overlap.steps=2", "params.attacks.ring.steps=2"),
            *("params.attacks.remix.steps=2", "params.judges.names=[wang]", "params.encodings=[]"),
            *("params.database_false_alarms=0.4", "params.examples=0"),
        ],
    ),
    "deep_thinking": (
        "deep_thinking/prefix_sums_small.yaml",
        [
            *("params.training.data.updates=8", "params.training.report_every=4", "params.network.width=8"),
            *("params.training.batch=8", "params.evaluation.sizes=[{size: 16, iterations: 20, instances: 50}]"),
            "params.evaluation.show={size: 16, iterations: 12, instances: 2}",
        ],
    ),
    "free_training": (
        "free_training/digits_small.yaml",
        [
            *("params.training.updates=12", "params.training.report_every=6", "params.method={kind: free, replay: 3}"),
            *("params.data.test_limit=50", "params.evaluation.attacks={pgd: {kind: pgd, steps: 5}}"),
        ],
    ),
    "generalization": (
        "generalization/small.yaml",
        [
            *(f"{LEARNT}.epochs=4", f"{LEARNT}.report_every=2", "params.poison.share=0.3", "params.boundary.steps=20"),
            "params.basins=null",
        ],
    ),
    "inevitability": (
        "inevitability/cube_small.yaml",
        [
            *("params.data.train_limit=200", "params.data.test_limit=20", "params.curves.attacks.apgd.steps=2"),
            *("params.slice=10", "params.bounds.samples=10", "params.epsilons={L2: [0.1, 0.5]}"),
            *(f"params.networks.{each}.training.updates=4" for each in ("linear", "mlp", "mlp_pgd")),
        ],
    ),
    "invisibility_cloak": (
        "invisibility_cloak/small.yaml",
        [
            *("params.data.side=48", "params.data.train_limit=24", "params.data.test_limit=8"),
            *(
                f"params.detectors.{each}.training={{updates: 6, batch: 4, held_out: 4, report_every: 3}}"
                for each in "ab"
            ),
            *("params.search.size=[10, 6]", "params.search.iterations=4", "params.search.batch=4"),
            *("params.patches={on_a: {detectors: [a]}}", "params.examples=0"),
        ],
    ),
    "loss_landscape": (
        "loss_landscape/small.yaml",
        [
            *(f"{LEARNT}.epochs=2", "params.grid.x.steps=3", "params.grid.y.steps=2", "params.images=50"),
            *("params.data.train_limit=200", "params.network.classifier.options={blocks: [1], first: 8}"),
        ],
    ),
    "poison_frogs": (
        "poison_frogs/small.yaml",
        [
            *(f"{LEARNT}.epochs=1", "params.targets.count=2", "params.targets.only_correct=false"),
            *("params.attack.iterations=3", "params.show=0", "sweep=null"),
        ],
    ),
    "robustness_evaluation": (
        "robustness_evaluation/small.yaml",
        [
            *("params.first=20", "params.slice=20", "params.epsilons=[0.1]", "params.attacks.autoattack.queries=20"),
            "params.attacks.fab.steps=5",
        ],
    ),
    "sonification": (
        "sonification/small.yaml",
        [
            "params.data={name: tests.jobs.sonification.tones:tones, rate: 8000, seconds: 0.25}",
            "params.network={kind: train, recogniser: {bands: 16, channels: [8, 8], kernels: [3, 5], strides: [1, 2]}, "
            "training: {epochs: 2, batch: 10}}",
            "params.sonifications={channels: {layers: [conv1], count: 2, ascent: {steps: 3}}}",
            *("params.inversion=null", "params.examples=0"),
        ],
    ),
    "stacked_unets": (
        "stacked_unets/small.yaml",
        [
            *("params.training.updates=4", "params.training.report_every=2", "params.training.held_out=2"),
            *("params.data.test_limit=2", "params.evaluation.leave_out=false", "params.evaluation.shown=1"),
        ],
    ),
}


@dataclass(frozen=True)
class Variant:
    """A way to compute a study on the GPU, and by how much a number may differ from that of the CPU."""

    name: str = ""
    changes: tuple[str, ...] = FLOAT32
    absolute: float = 0.02
    """one image of 50 may turn"""
    relative: float = 0.005
    """of the CPU's number: after few updates rounding has grown"""


PLAIN = Variant()
VARIANTS = {
    "free_training": (
        Variant("TF32", (), 0.02, 0.02),
        Variant("bfloat16", ("params.training.engine.precision=bfloat16",), 0.1, 0.1),
        Variant("kernels", (*FLOAT32, "params.training.engine.compile=kernels")),
        Variant("graphs", (*FLOAT32, "params.training.engine.compile=graphs")),
    ),
    "deep_thinking": (Variant("kernels", (*FLOAT32, "params.training.engine.compile=kernels")),),
}


@dataclass
class Comparison:
    """What came of a study. Differences are those of the worst number, in units of what is tolerated."""

    study: str
    variant: Variant = PLAIN
    seconds: dict[str, float] = field(default_factory=dict)
    numbers: int = 0
    worst: float = math.nan
    worst_number: str = ""
    same_twice: bool | None = None
    same_resumed: bool | None = None
    different: tuple[str, ...] = ()
    """names of what was not the same bit for bit"""
    problem: str = ""

    @property
    def passed(self) -> bool:
        bits = self.same_twice is not False and self.same_resumed is not False
        return not self.problem and bits and (math.isnan(self.worst) or self.worst <= 1)


class NumbersOnly(Run):
    """Pictures are not compared, and would take most of a dry run."""

    def figure(self, name: str, figure: "Figure", title: str = "") -> None:
        pass


class KilledOnce(NumbersOnly):
    """Dies after its first checkpoint, or when its first cells are computed."""

    def checkpoint(self, state: dict[str, Any], phase: str = "main") -> None:
        super().checkpoint(state, phase)
        raise KeyboardInterrupt

    def map(self, *arguments: Any, **options: Any) -> list[Any]:
        super().map(*arguments, **options)
        raise KeyboardInterrupt


def compared(study: str, machine: Machine, variant: Variant = PLAIN) -> Comparison:
    """Compute a study's trial on the CPU, on the GPU, there again, and there once more with a death on the way.

    In a dry run the CPU is in the place of the GPU, so that all have to be the same bit for bit.
    """
    result = Comparison(f"{study}, {variant.name}" if variant.name else study, variant)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        try:
            first = _computed(study, machine.gpus, store / "first", result, "GPU")
            if not machine.dry:
                again = _computed(study, machine.gpus, store / "again", result, "again")
                result.different += tuple(_different(first, again))
                result.same_twice = not result.different
                reference = _computed(study, 0.0, store / "reference", result, "CPU")
                _measure(result, first, reference)
            resumed = _computed(study, machine.gpus, store / "killed", result, "resumed", killed=True)
            different = tuple(_different(first, resumed))
            result.same_resumed, result.numbers = not different, len(first)
            result.different += different
        except Exception as error:
            result.problem = f"{type(error).__name__}: {error}"
    return result


def _computed(
    study: str, gpus: float, folder: Folder, result: Comparison, name: str, killed: bool = False
) -> dict[str, Any]:
    """What a trial gives, by name. killed: it dies on the way, and is begun again."""
    path, changes = STUDIES[study]
    variant = PLAIN if name == "CPU" else result.variant
    changes = [*changes, f"resources.gpus={gpus}", f"store={folder.uri}", *variant.changes]
    trial = plan.trials(spec.load(str(CONFIGS / path), changes))[0]
    store = open_store(folder.uri)
    if study == "robustness_evaluation":
        arguments = {"classes": 10, "channels": 1}
        torch.manual_seed(0)
        weights = classifier("digits_net", **arguments).state_dict()
        name_of_model = trial.spec.params.network.name  # type: ignore[attr-defined]
        models.publish(store, name_of_model, weights, draft("jobs.common.models.classifiers:digits_net", arguments))
    placement = catalog.load(trial.spec.job).placement

    def handle(kind: type[NumbersOnly]) -> Run:
        executor = InProcess(gpus=gpus)
        return kind(folder / "trial", trial.spec.seed, executor=executor, store=store, placement=placement)

    if killed:
        with contextlib.suppress(KeyboardInterrupt):
            perform(trial, handle(KilledOnce))
    run = handle(NumbersOnly)
    perform(trial, run)
    result.seconds[name] = round(run.seconds, 2)
    return dict(_values(run))


def _values(run: Run) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(run.rows):
        yield from _numbers(f"row {number}", row)
    for path in sorted(run.written.artefacts):
        if path.endswith(".parquet"):
            for number, row in enumerate(run.folder.read_table(path).to_pylist()):
                yield from _numbers(f"{path} row {number}", row)
        elif path.startswith("models/"):
            for name, tensor in decode(run.folder.read(path))["weights"].items():
                yield (
                    f"{path} {name}",
                    hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest(),
                )


def _numbers(place: str, row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if "second" not in name:
            yield f"{place}, {name}", value


def _different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what is not the same. NaN is the same as NaN."""
    names = sorted(one.keys() | other.keys())
    return [name for name in names if repr(one.get(name)) != repr(other.get(name))]


def _measure(result: Comparison, one: dict[str, Any], reference: dict[str, Any]) -> None:
    """The worst difference of a float that both have, in units of what is tolerated."""
    result.worst = 0.0
    for name, value in reference.items():
        mine = one.get(name)
        if not isinstance(value, float) or not isinstance(mine, float) or math.isnan(value) or value == mine:
            continue
        tolerated = result.variant.absolute + result.variant.relative * abs(value)
        ratio = abs(mine - value) / tolerated if math.isfinite(mine) else math.inf
        if ratio > result.worst:
            result.worst, result.worst_number = ratio, f"{name}: {mine:.6g}, on the CPU {value:.6g}"


def all_compared(machine: Machine, names: Sequence[str], left: Any) -> list[Comparison]:
    """left: the seconds that are left; when there are none the rest is left out."""
    asked = [(name, PLAIN) for name in names]
    if not machine.dry:  # they differ on a GPU alone
        asked += [(name, variant) for name in names for variant in VARIANTS.get(name, ())]
    results = []
    for name, variant in asked:
        if left() <= 0:
            name = f"{name}, {variant.name}" if variant.name else name
            results.append(Comparison(name, variant, problem="left out: there was no time left"))
            continue
        results.append(compared(name, machine, variant))
        print(f"{results[-1].study}: {'passed' if results[-1].passed else results[-1]}", flush=True)
    return results
