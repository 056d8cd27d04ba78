"""Whether the cluster has room for what is waiting, and for how long it has had none."""

import time

from service.cluster import connection
from service.spec import Resources

LOOK_SECONDS = 1.0  # between two looks at the cluster


class RoomWatch:
    """Looks at the cluster now and then. what: waits for room, in the sentence when there is none for too long."""

    def __init__(self, what: str, resources: Resources, max_wait_seconds: float) -> None:
        self.what, self.resources, self.max_wait_seconds = what, resources, max_wait_seconds
        self._looked_at = float("-inf")
        self._room_at = time.monotonic()
        self._room = 0

    def look(self) -> int:
        """How many of them fit, were the cluster empty. ClusterError if none has for `max_wait_seconds`."""
        now = time.monotonic()
        if now - self._looked_at > LOOK_SECONDS:
            self._room, self._looked_at = connection.room(self.resources), now
            if self._room:
                self._room_at = now
            elif now - self._room_at > self.max_wait_seconds:
                raise connection.no_room(self.what, self.resources, self.max_wait_seconds)
        return self._room
