"""Who may use the endpoints: every HTTP server of Serve checks the key of a request, and whether the key has requests
left, before it reads the body."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ray.util.metrics import Counter

from service.errors import AssayError, BusyError, OverLimitError, UnauthorisedError
from serving.http.headers import Headers
from serving.http.keys import Keyring
from serving.http.quotas import Bucket, Quotas
from serving.http.settings import Key

OPEN_PATHS = ("v2/health/live", "v2/health/ready", "-/healthz")
NO_KEY = "-"  # in metrics: all requests without a known key share one label
PREFETCH_SECONDS = 0.1  # the requests of so long are taken from the quotas at once: a call there costs milliseconds
PREFETCH_VALID_SECONDS = 1.0  # requests that were taken and not used within this time are dropped


class TakesFromBuckets(Protocol):
    """The quotas of the cluster, or what stands in for them in a test."""

    async def take(self, bucket: Bucket, amount: float, more: int) -> tuple[float, float]: ...


def is_open(method: str, path: str, headers: Headers) -> bool:
    """Whether a request needs no key: the health of the server, without a body."""
    if path.strip("/") not in OPEN_PATHS or method not in ("GET", "HEAD"):
        return False
    return headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers


class Allowance:
    """The requests of one key that this server may admit without a call to the quotas."""

    def __init__(self, key: Key, quotas: TakesFromBuckets, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket, self._quotas, self._clock = Bucket.for_requests(key), quotas, clock
        self._prefetch = int(PREFETCH_SECONDS * key.requests_per_second)
        self._left, self._valid_until, self._refused_until = 0.0, 0.0, 0.0
        self._one_at_a_time = asyncio.Lock()  # requests that come during a call to the quotas wait for its answer

    async def spend(self) -> float:
        """Admit one request: 0. Else the seconds after which one would be; until then the quotas are not called."""
        async with self._one_at_a_time:
            if (now := self._clock()) < self._refused_until:
                return self._refused_until - now
            if self._left < 1 or now > self._valid_until:
                self._left, seconds = await self._quotas.take(self._bucket, 1, self._prefetch)
                now = self._clock()
                self._valid_until, self._refused_until = now + PREFETCH_VALID_SECONDS, now + seconds
                if seconds:
                    return seconds
            self._left -= 1
            return 0.0


class Admission:
    """Whose a request is, and whether it is admitted. Those that are not are counted."""

    def __init__(self, keys: Sequence[Key], quotas: TakesFromBuckets | None = None) -> None:
        quotas = quotas or Quotas()
        self._keyring = Keyring(keys)
        self._allowances = {key.name: Allowance(key, quotas) for key in keys}
        self._refusals = Counter(
            "assay_refusals", "Requests refused for want of a key or of quota, by HTTP status.", ("status", "key")
        )

    def holder(self, authorizations: Sequence[str]) -> Key:
        """As Keyring.holder."""
        try:
            return self._keyring.holder(authorizations)
        except UnauthorisedError as error:
            raise self._counted(error, NO_KEY) from None

    async def spend(self, key: Key) -> None:
        """Take one request from its quota. OverLimitError if it has none left, BusyError if that cannot be known."""
        try:
            seconds = await self._allowances[key.name].spend()
        except BusyError as error:
            raise self._counted(error, key.name) from None
        if seconds:
            message = f"the key has used its {key.burst:,} requests at once and {key.requests_per_second:g} a second"
            raise self._counted(OverLimitError(message, seconds), key.name)

    def _counted(self, error: AssayError, key: str) -> AssayError:
        self._refusals.inc(tags={"status": str(error.http_status), "key": key})
        return error
