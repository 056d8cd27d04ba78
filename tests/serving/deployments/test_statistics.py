"""Statistics of the models of a replica."""

import asyncio

from serving.deployments.statistics import HAND_OVER_SECONDS, Measurements
from tests.serving import virtual_time


def test_rays_metrics_get_every_value_a_moment_later() -> None:
    recorded: list[tuple[float, dict[str, str]]] = []

    def record(value: float, tags: dict[str, str]) -> None:
        recorded.append((value, tags))

    async def main() -> None:
        measurements = Measurements()
        for round_ in range(2):
            measurements.add(record, 1.0, model="a")
            measurements.add(record, 2.0, model="b")
            assert len(recorded) == 2 * round_
            await asyncio.sleep(1.1 * HAND_OVER_SECONDS)
            assert recorded[2 * round_ :] == [(1.0, {"model": "a"}), (2.0, {"model": "b"})]

    virtual_time.run(main())
