"""A request on its way through a replica."""

from starlette.requests import Request

from serving.deployments.memory import Holding
from serving.deployments.statistics import ModelKey
from serving.deployments.turns import Owner
from serving.http.headers import first_values


class Call:
    """A request, and what is known of it meanwhile.

    retry_after: seconds after which it may be sent again, if there is no room for it now. key: the name of its key;
    None: no keys are required. counted: it asks for inference. streams: its answer goes on when it has been handled.
    """

    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after
        self.key: str | None = None
        self.holding: Holding | None = None
        self.counted = self.streams = False
        self.model: ModelKey | None = None

    @property
    def owner(self) -> Owner:
        """Among whom the time of computation is shared."""
        return self.key or "", self.model[0] if self.model else ""


class HttpCall(Call):
    """One over HTTP. headers: each name with the first of its values."""

    def __init__(self, request: Request, retry_after: float) -> None:
        super().__init__(retry_after)
        self.request, self.headers = request, first_values(request.scope)
