"""A request for inference or for an attack as HTTP brings it: tensors in the protocol's form, or an uploaded image."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from service.errors import InputError
from serving.http import protocol
from serving.http.protocol import InferRequest, Scalar, Wanted
from serving.http.uploads import PNG_MEDIA
from serving.kinds.endpoint import Endpoint, Form

MAX_QUERY = 64  # parameters
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff")  # how PNG and JPEG begin
UPLOAD = "an image is sent by curl --data-binary @cat.png -H 'Content-Type: image/png'"


@dataclass(frozen=True)
class Message:
    """What of a request says what is asked. body: unpacked. header_length: of its JSON part, if tensors follow it."""

    body: bytes
    content_type: str
    header_length: str | None
    query: str
    accept: str

    @classmethod
    def of(cls, request: Request, body: bytes) -> "Message":
        headers = request.headers
        return cls(
            body,
            headers.get("content-type", "").partition(";")[0].strip().lower(),
            headers.get(protocol.HEADER_LENGTH),
            request.scope["query_string"].decode("latin-1"),
            headers.get("accept", "").lower(),
        )

    @property
    def is_image(self) -> bool:
        return self.content_type.startswith("image/")

    @property
    def wants_png(self) -> bool:
        return PNG_MEDIA in self.accept

    def form(self, request: InferRequest) -> Form:
        """In which form its answer is wanted."""
        wanted = None if request.wanted is None else tuple(each.name for each in request.wanted)
        return Form(wanted, self.wants_png, self.is_image)

    def parse(self, endpoint: Endpoint) -> InferRequest:
        """The request, well-formed. InputError if it is not, or if the model takes no images."""
        if not self.is_image:
            if self.content_type.startswith("multipart/"):
                raise InputError("a form is not taken", UPLOAD)
            if self.body.startswith(SIGNATURES):
                raise InputError("the body is an image; its content type does not say so", UPLOAD)
            if self.query:
                raise InputError("parameters in the address belong to an uploaded image; those of tensors to the body")
            return protocol.parse_infer(self.body, self.header_length)
        if endpoint.image is None:
            raise InputError(f"model {endpoint.card.name!r} takes no images; send tensors")
        parameters = parse_query(self.query)
        outputs = parameters.pop("outputs", None)
        wanted = None if outputs is None else tuple(Wanted(name, False) for name in str(outputs).split(","))
        inputs = {endpoint.inputs[0].name: endpoint.image.read(self.body)}
        return InferRequest("", inputs, parameters, wanted, all_binary=False)


def parse_query(query: str) -> dict[str, Scalar]:
    """Parameters from an address. What reads as a JSON number, true or false is one; anything else is a string."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_QUERY) if query else []
    except ValueError as error:
        raise InputError(f"the parameters in the address are not of the form name=value&...: {error}") from error
    parameters: dict[str, Scalar] = {}
    for name, text in pairs:
        if name in parameters:
            raise InputError(f"parameter {name!r} is given twice")
        parameters[name] = _scalar(text)
    return parameters


def _scalar(text: str) -> Scalar:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text
