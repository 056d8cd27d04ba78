"""What was served: counts, times and batch sizes of each model, in the shape of Triton's statistics extension.

The same numbers go to Ray's metrics, where Prometheus finds them added up over all replicas; the endpoint answers for
its own replica.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from ray.serve import metrics

from serving.http.attack_server import Reply
from serving.http.batching import Executed

BATCH_SIZES = [1.0, 2, 4, 8, 16, 32, 64, 128, 256]
MILLISECONDS = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000]
NONE = "-"  # requests for models that do not exist share one label, so that strangers cannot make labels

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


@dataclass
class OfModel:
    """Since the replica started."""

    inputs: int = 0  # rows that were answered
    last: float = 0.0  # wall clock
    success: Total = field(default_factory=Total)  # requests
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    by_size: defaultdict[int, Total] = field(default_factory=lambda: defaultdict(Total))  # executions by rows
    streamed: int = 0  # answers sent on streams
    streams: int = 0  # open now
    attacks: int = 0  # under way now
    attack_success: Total = field(default_factory=Total)  # attacks that were answered, and the time that they computed
    attack_fail: Total = field(default_factory=Total)
    queries: int = 0  # passes forward that attacks took, of all images
    gradients: int = 0  # passes backward


class Statistics:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self._models: defaultdict[ModelKey, OfModel] = defaultdict(OfModel)
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
            "Attacks by model, HTTP status and key.",
            ("model", "status", "key"),  # type: ignore[arg-type]
        )
        of_work = ("model", "key")
        self._attack_seconds = metrics.Counter("assay_attack_seconds", "Time of computation.", of_work)  # type: ignore[arg-type]
        self._attack_gmacs = metrics.Counter("assay_attack_gmacs", "Work: 10^9 multiplications.", of_work)  # type: ignore[arg-type]
        self._attack_queries = metrics.Counter("assay_attack_queries", "Passes of images forward.", of_work)  # type: ignore[arg-type]
        self._attack_gradients = metrics.Counter("assay_attack_gradients", "Passes of images back.", of_work)  # type: ignore[arg-type]

    def executed(self, batch: Executed) -> None:
        """A batch was computed."""
        card = batch.endpoint.card
        of_model = self._models[card.name, card.version]
        of_model.inputs += batch.rows
        of_model.last = time.time()
        of_model.by_size[batch.rows].add(batch.took)
        for waited in batch.waited:
            of_model.queue.add(waited)
        self._batch_sizes.observe(batch.rows, tags={"model": card.name})

    def answered(self, model: ModelKey | None, status: int, seconds: float, key: str | None) -> None:
        """A request was answered; model is None if it never came to one. key: the name of who sent it."""
        name = model[0] if model else NONE
        self._requests.inc(tags={"model": name, "status": str(status), "key": key or NONE})
        self._latency.observe(seconds * 1000, tags={"model": name})
        if model:
            of_model = self._models[model]
            (of_model.success if status < 400 else of_model.fail).add(seconds)

    def attacked(self, model: ModelKey, reply: Reply, key: str | None) -> None:
        """A request for an attack was answered, or its client left. key: the name of who sent it."""
        of_model, spent = self._models[model], reply.spent
        (of_model.attack_success if reply.status < 400 else of_model.attack_fail).add(spent.seconds)
        of_model.queries += spent.queries
        of_model.gradients += spent.gradients
        of_work = {"model": model[0], "key": key or NONE}
        self._attacks.inc(tags={**of_work, "status": str(reply.status)})
        for counter, amount in (
            (self._attack_seconds, spent.seconds),
            (self._attack_gmacs, spent.gmacs),
            (self._attack_queries, spent.queries),
            (self._attack_gradients, spent.gradients),
        ):
            if amount:  # a counter takes no zero
                counter.inc(amount, tags=of_work)

    def of(self, key: ModelKey) -> OfModel:
        return self._models[key]

    def tree(self, running: Counter[ModelKey], name: str | None = None, version: int | None = None) -> dict[str, Any]:
        """Of all models, of one, or of one version of it. running: batches being computed now."""
        wanted = [
            (key, of_model)
            for key, of_model in sorted(self._models.items())
            if name in (None, key[0]) and version in (None, key[1])
        ]
        return {"model_stats": [_tree(key, of_model, running[key]) for key, of_model in wanted]}


def _tree(key: ModelKey, of_model: OfModel, batches: int) -> dict[str, Any]:
    infer = Total()
    for total in of_model.by_size.values():
        infer.add(total.seconds, total.count)
    return {
        "name": key[0],
        "version": str(key[1]),
        "last_inference": round(of_model.last * 1000),
        "inference_count": of_model.inputs,
        "execution_count": infer.count,
        "inference_stats": {
            "success": of_model.success.tree(),
            "fail": of_model.fail.tree(),
            "queue": of_model.queue.tree(),
            "compute_infer": infer.tree(),
        },
        "batch_stats": [
            {"batch_size": size, "compute_infer": total.tree()} for size, total in sorted(of_model.by_size.items())
        ],
        "streamed": of_model.streamed,
        "attack_stats": {
            "success": of_model.attack_success.tree(),
            "fail": of_model.attack_fail.tree(),
            "queries": of_model.queries,
            "gradients": of_model.gradients,
        },
        "running": {"batches": batches, "streams": of_model.streams, "attacks": of_model.attacks},
    }
