"""Statistics of each model: counts, times and batch sizes, in the shape of Triton's statistics extension.

The same numbers go to Ray's metrics, from which Prometheus sums them over all replicas; the endpoint answers for
its own replica.
"""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from ray.serve import metrics

from serving.deployments.attack_server import Reply
from serving.deployments.batching import Executed

BATCH_SIZES = [1.0, 2, 4, 8, 16, 32, 64, 128, 256]
MILLISECONDS = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000]
HAND_OVER_SECONDS = 0.2  # until Ray's metrics get a value
NONE = "-"  # requests for models that do not exist share one label: a client must not be able to make labels

ModelKey = tuple[str, int]  # name, version


@dataclass
class Total:
    """How often, and how long in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.seconds += seconds

    def tree(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(self.seconds * 1e9)}


NOTHING = Total()  # of what Triton counts and there is not here, so that its tools find the field


@dataclass
class ModelStatistics:
    """Since the replica started."""

    inputs: int = 0  # rows that were answered
    last: float = 0.0  # wall clock
    success: Total = field(default_factory=Total)  # requests
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    compute_input: Total = field(default_factory=Total)  # requests that were read and checked
    compute_output: Total = field(default_factory=Total)  # answers that were written
    by_size: defaultdict[int, Total] = field(default_factory=lambda: defaultdict(Total))  # executions by rows
    streamed: int = 0  # answers sent on streams
    streams: int = 0  # open now
    attacks: int = 0  # under way now
    # attacks and sonifications that were answered, and the time that they computed
    attack_success: Total = field(default_factory=Total)
    attack_fail: Total = field(default_factory=Total)
    queries: int = 0  # passes forward that attacks took, of all inputs
    gradients: int = 0  # passes backward


class Measurements:
    """Values on their way to Ray's metrics. Many at once take a fraction of the time that they take one by one."""

    def __init__(self) -> None:
        self._observed: list[tuple[metrics.Histogram, float, dict[str, str]]] = []
        self._counted: Counter[tuple[metrics.Counter, tuple[tuple[str, str], ...]]] = Counter()  # with their tags
        self._will_hand_over = False

    def observe(self, histogram: metrics.Histogram, value: float, **tags: str) -> None:
        self._observed.append((histogram, value, tags))
        self._hand_over_soon()

    def count(self, counter: metrics.Counter, **tags: str) -> None:
        """One more."""
        self._counted[counter, tuple(tags.items())] += 1
        self._hand_over_soon()

    def _hand_over_soon(self) -> None:
        if not self._will_hand_over:
            self._will_hand_over = True
            asyncio.get_running_loop().call_later(HAND_OVER_SECONDS, self._hand_over)

    def _hand_over(self) -> None:
        self._will_hand_over = False
        for histogram, value, tags in self._observed:
            histogram.observe(value, tags=tags)
        for (counter, items), count in self._counted.items():
            counter.inc(count, tags=dict(items))
        self._observed.clear()
        self._counted.clear()


class Statistics:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self._measurements = Measurements()
        self._models: defaultdict[ModelKey, ModelStatistics] = defaultdict(ModelStatistics)
        self._requests = metrics.Counter(
            "assay_requests",
            "Requests for inference by model, HTTP status and key.",
            ("model", "status", "key"),  # type: ignore[arg-type]  # annotated there as a tuple of one
        )
        self._latency = metrics.Histogram(
            "assay_latency_ms", "Time from request to answer.", MILLISECONDS, tag_keys=("model",)
        )
        self._batch_sizes = metrics.Histogram(
            "assay_batch_size", "Inputs computed together.", BATCH_SIZES, tag_keys=("model",)
        )

        self._attacks = metrics.Counter(
            "assay_attacks",
            "Attacks and sonifications by model, HTTP status and key.",
            ("model", "status", "key"),  # type: ignore[arg-type]
        )
        tags = ("model", "key")
        self._attack_seconds = metrics.Counter("assay_attack_seconds", "Time of computation.", tags)  # type: ignore[arg-type]
        self._attack_gmacs = metrics.Counter("assay_attack_gmacs", "Work: 10^9 multiplications.", tags)  # type: ignore[arg-type]
        self._attack_queries = metrics.Counter("assay_attack_queries", "Passes of inputs forward.", tags)  # type: ignore[arg-type]
        self._attack_gradients = metrics.Counter("assay_attack_gradients", "Passes of inputs back.", tags)  # type: ignore[arg-type]

    def executed(self, batch: Executed) -> None:
        """A batch was computed."""
        card = batch.endpoint.card
        model_statistics = self._models[card.name, card.version]
        model_statistics.inputs += batch.rows
        model_statistics.last = time.time()
        model_statistics.by_size[batch.rows].add(batch.seconds)
        for waited in batch.waited:
            model_statistics.queue.add(waited)
        self._measurements.observe(self._batch_sizes, batch.rows, model=card.name)

    def answered(self, model: ModelKey | None, status: int, seconds: float, key: str | None) -> None:
        """A request was answered. model: None if it never reached one. key: the name of its key."""
        name = model[0] if model else NONE
        self._measurements.count(self._requests, model=name, status=str(status), key=key or NONE)
        self._measurements.observe(self._latency, seconds * 1000, model=name)
        if model:
            model_statistics = self._models[model]
            (model_statistics.success if status < 400 else model_statistics.fail).add(seconds)

    def attacked(self, model: ModelKey, reply: Reply, key: str | None) -> None:
        """A request for an attack or a sonification was answered, or its client left. key: the name of its key."""
        model_statistics, spent = self._models[model], reply.spent
        (model_statistics.attack_success if reply.status < 400 else model_statistics.attack_fail).add(spent.seconds)
        model_statistics.queries += spent.queries
        model_statistics.gradients += spent.gradients
        tags = {"model": model[0], "key": key or NONE}
        self._attacks.inc(tags=tags | {"status": str(reply.status)})
        for counter, amount in (
            (self._attack_seconds, spent.seconds),
            (self._attack_gmacs, spent.gmacs),
            (self._attack_queries, spent.queries),
            (self._attack_gradients, spent.gradients),
        ):
            if amount:  # a counter takes no zero
                counter.inc(amount, tags=tags)

    def of(self, key: ModelKey) -> ModelStatistics:
        return self._models[key]

    def tree(self, running: Counter[ModelKey], name: str | None = None, version: int | None = None) -> dict[str, Any]:
        """Of all models, of one, or of one version of it. running: batches being computed now."""
        matching = [
            (key, model_statistics)
            for key, model_statistics in sorted(self._models.items())
            if name in (None, key[0]) and version in (None, key[1])
        ]
        return {"model_stats": [_tree(key, model_statistics, running[key]) for key, model_statistics in matching]}


def _tree(key: ModelKey, model_statistics: ModelStatistics, batches: int) -> dict[str, Any]:
    infer = Total()
    for total in model_statistics.by_size.values():
        infer.add(total.seconds, total.count)
    return {
        "name": key[0],
        "version": str(key[1]),
        "last_inference": round(model_statistics.last * 1000),
        "inference_count": model_statistics.inputs,
        "execution_count": infer.count,
        "inference_stats": {
            "success": model_statistics.success.tree(),
            "fail": model_statistics.fail.tree(),
            "queue": model_statistics.queue.tree(),
            "compute_input": model_statistics.compute_input.tree(),
            "compute_infer": infer.tree(),
            "compute_output": model_statistics.compute_output.tree(),
            "cache_hit": NOTHING.tree(),
            "cache_miss": NOTHING.tree(),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": NOTHING.tree(),  # requests are read one by one, before they are in a batch
                "compute_infer": total.tree(),
                "compute_output": NOTHING.tree(),
            }
            for size, total in sorted(model_statistics.by_size.items())
        ],
        "memory_usage": [],
        "streamed": model_statistics.streamed,
        "attack_stats": {
            "success": model_statistics.attack_success.tree(),
            "fail": model_statistics.attack_fail.tree(),
            "queries": model_statistics.queries,
            "gradients": model_statistics.gradients,
        },
        "running": {"batches": batches, "streams": model_statistics.streams, "attacks": model_statistics.attacks},
    }
