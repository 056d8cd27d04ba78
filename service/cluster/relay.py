"""What relays rows from the processes that compute a trial to the trial's own process, which passes them on to Tune.

An actor beside the process that opens it: whoever computes is busy, and may die. Where several processes train a trial
together, it is the driver's, one for all trials of the run: a trial's own process is busy being asked by Tune, and may
die as well. Where a trial reserves, it is the trial's own. Nothing heavy is imported here: a trial waits for it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from service.execution.records import Failure
    from service.handle.rows import Row

Message = tuple[int, "Row", int | None]  # what a service.run.Report is called with


@dataclass
class Attempt:
    """One start of a trial."""

    rows: "asyncio.Queue[Message]" = field(default_factory=lambda: asyncio.Queue(1))
    answers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    unanswered: bool = False
    failures: dict[int, "Failure"] = field(default_factory=dict)
    group: PlacementGroup | None = None  # what is reserved for its workers


class Relay:
    """Rows one by one, each answered by the question for the next; how ranks failed; and where they are."""

    def __init__(self) -> None:
        self._attempts: dict[str, Attempt] = {}

    async def open(self, trial: str) -> None:
        """Begin an attempt. If an earlier one died without a word, its workers are ended."""
        await self.close(trial)
        self._attempts[trial] = Attempt()

    async def close(self, trial: str) -> None:
        """End the workers of a trial, if there are any, and free what is reserved for them.

        Ray ends them with the trial's process, but the reservation stays until the whole job has ended.
        """
        attempt = self._attempts.get(trial)
        if attempt is not None and attempt.group is not None:
            remove_placement_group(attempt.group)

    async def started(self, trial: str, group: PlacementGroup) -> None:
        self._attempts[trial].group = group

    async def report(self, trial: str, message: Message) -> None:
        """Hand over a row; returns when it has been judged and the trial may go on."""
        attempt = self._attempts[trial]
        await attempt.rows.put(message)
        await attempt.answers.acquire()

    async def next(self, trial: str, seconds: float) -> Message | None:
        """The next row, None if there is none in time. To ask says that the trial may go on."""
        attempt = self._attempts[trial]
        if attempt.unanswered:
            attempt.answers.release()
        try:
            message = await asyncio.wait_for(attempt.rows.get(), seconds)
        except TimeoutError:
            message = None
        attempt.unanswered = message is not None
        return message

    async def failed(self, trial: str, rank: int, failure: "Failure") -> None:
        self._attempts[trial].failures[rank] = failure

    async def failures(self, trial: str) -> dict[int, "Failure"]:
        """How the job's code failed, by rank, the first first."""
        return self._attempts[trial].failures


def open_relay() -> Any:
    """A new relay, on the node of this process. It ends with the last reference to it, or with this process."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(Relay)
    return actor.options(scheduling_strategy=here).remote()
