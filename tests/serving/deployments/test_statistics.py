"""Statistics of the models of a replica."""

import asyncio
from typing import Any, cast

from ray.serve import metrics

from serving.deployments.statistics import HAND_OVER_SECONDS, Measurements
from tests.serving import virtual_time


class Recorder:
    """Stands for a counter or a histogram of Ray."""

    def __init__(self) -> None:
        self.values: list[tuple[float, dict[str, str]]] = []

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self.values.append((value, tags))

    observe = inc


def test_rays_metrics_get_every_value_a_moment_later() -> None:
    counter, histogram = Recorder(), Recorder()

    async def main() -> None:
        measurements = Measurements()
        for round_ in range(2):
            for model in ("a", "b", "a"):
                measurements.count(cast(metrics.Counter, counter), model=model, status="200")
                measurements.observe(cast(metrics.Histogram, histogram), 5.0, model=model)
            assert len(counter.values) == 2 * round_ and len(histogram.values) == 3 * round_
            await asyncio.sleep(1.1 * HAND_OVER_SECONDS)
            counts: list[tuple[float, Any]] = [
                (2, {"model": "a", "status": "200"}),
                (1, {"model": "b", "status": "200"}),
            ]
            assert counter.values[2 * round_ :] == counts  # together
            assert histogram.values[3 * round_ :] == [
                (5.0, {"model": model}) for model in ("a", "b", "a")
            ]  # one by one

    virtual_time.run(main())
