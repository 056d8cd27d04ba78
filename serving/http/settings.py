"""The settings of `assay serve`: configs/serve.yaml as one strict and frozen object.

Ray Serve ignores misspelt keys and leaves queues and bodies without a bound; here each key is checked, and each
default of Serve that matters is written out.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from service.errors import FieldError, SpecError
from service.params import Section
from service.planning import yaml_text
from service.planning.validation import validate

KEY_NAME = "[a-z0-9][a-z0-9-]{0,62}"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
LOAD_SECONDS = 30.0  # over which Serve averages the load that it scales by


class Tls(Section):
    """HTTPS by Serve's own proxy. Both files are PEM, and on every node that has a proxy."""

    certificate: str = Field(min_length=1, description="the server's certificate, and those up to its authority")
    private_key: str = Field(min_length=1, description="its private key, without a password")


class Http(Section):
    """Where the endpoints listen."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen at; 0.0.0.0: every one of the machine")
    port: int = Field(8000, ge=1, le=65535, description="TCP port")
    hosts: tuple[str, ...] = Field(
        (), max_length=64, description="names by which it may be asked; none: on a loopback address only such, else any"
    )
    origins: tuple[str, ...] = Field(
        (), max_length=64, description='web pages of others that may use it, as "https://lab.example"; "*": all'
    )
    request_seconds: float = Field(300, gt=0, description="a request that takes longer is dropped")
    keep_alive_seconds: int = Field(5, ge=1, description="how long an idle connection is kept")
    tls: Tls | None = Field(None, description="HTTPS; none: plain HTTP, for a proxy in front or this machine alone")

    @property
    def public(self) -> bool:
        """Whether other machines may reach it."""
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:  # a name
            return self.host != "localhost"

    @property
    def names(self) -> tuple[str, ...]:
        """By which clients may ask for it; none: by any."""
        return self.hosts or (() if self.public else tuple(dict.fromkeys((*LOOPBACK_NAMES, self.host))))


class Grpc(Section):
    """The same models over gRPC. Host, TLS and time are those of `http`. It needs the extra `assay[grpc]`."""

    port: int = Field(8001, ge=1, le=65535, description="TCP port")


class Metrics(Section):
    """What Prometheus reads, of an embedded Ray, at 127.0.0.1. The nodes of a cluster have ports of their own."""

    port: int = Field(8002, ge=1, le=65535, description="TCP port")


class Connections(Section):
    """The clients of an HTTP server: how many, how slow, and how much is held of what they send."""

    open: int = Field(1024, ge=8, le=100_000, description="connections at once; one more is closed")
    header_kb: int = Field(32, ge=1, le=1024, description="headers and address of a request in KiB; beyond: 431")
    header_fields: int = Field(100, ge=8, le=10_000, description="headers of a request; beyond: 431")
    header_seconds: float = Field(10, gt=0, description="until they are there; then the connection is closed")
    body_seconds: float = Field(10, gt=0, description="for a body, besides the time that its bytes have; beyond: 408")
    body_kb_per_second: float = Field(64, gt=0, description="the least rate of a body in KiB/s")
    unread_seconds: float = Field(30, gt=0, description="in which nothing of an answer is read; then it is closed")
    unread_mb: float = Field(
        256,
        gt=0,
        description="answers that wait to be read, in MiB; beyond: the oldest of whoever has most is dropped",
    )
    bodies_mb: float = Field(
        256, gt=0, description="all bodies that are held, in MiB; beyond: 503. Of one key or address half of it"
    )

    @property
    def header_bytes(self) -> int:
        return self.header_kb * 1024

    @property
    def bodies_bytes(self) -> int:
        return int(self.bodies_mb * 2**20)

    @property
    def unread_bytes(self) -> int:
        return int(self.unread_mb * 2**20)

    def seconds_for(self, size: int) -> float:
        """How long a body may take of which so many bytes have come."""
        return self.body_seconds + size / (self.body_kb_per_second * 1024)


class Key(Section):
    """Somebody who may use the endpoints, and how much. `assay serve --new-key NAME` makes one."""

    name: str = Field(pattern=f"^{KEY_NAME}$", description="in logs and metrics; never in an answer")
    hash: str = Field(pattern="^sha256:[0-9a-f]{32}:[0-9a-f]{64}$", description="of the key, which is stored nowhere")
    requests_per_second: float = Field(50, gt=0, le=1_000_000, description="in the long run; beyond: 429")
    burst: int = Field(100, ge=1, le=1_000_000, description="requests that may come at once after a pause")
    inference_gmacs_per_hour: float = Field(
        1_000_000, gt=0, description="work of its long inference: 10^9 multiplications an hour; beyond: 429"
    )
    attack_gmacs_per_hour: float = Field(
        100_000, gt=0, description="work of its attacks and sonifications: 10^9 multiplications an hour"
    )


class Replicas(Section):
    """Processes that hold models and answer requests. Load is the average of the last 30 s."""

    min: int = Field(1, ge=1, le=1000, description="replicas kept running")
    max: int = Field(1, ge=1, le=1000, description="replicas under load; above min, Serve scales between the two")
    target_ongoing: float = Field(16, gt=0, description="requests at a replica at once that scaling aims at")
    upscale_seconds: float = Field(10, ge=0, description="how long load is high before a replica is added")
    downscale_seconds: float = Field(300, ge=0, description="how long load is low before one is removed")
    cpus: float = Field(1, gt=0, le=1024, description="CPU cores of a replica")
    gpus: float = Field(
        0,
        ge=0,
        le=64,
        description="GPUs that a replica reserves and computes on; fractions share one; 0: it computes on the CPU",
    )
    threads: int = Field(1, ge=1, le=256, description="threads of the numerics in a replica")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise FieldError("max", f"be at least {self.min}, which is min", self.max)
        return self


class Queue(Section):
    """How many requests a replica takes, and how many may wait for one. Beyond that the answer is 503."""

    ongoing: int = Field(128, ge=1, le=10_000, description="requests at a replica at once")
    waiting: int = Field(256, ge=0, le=100_000, description="requests that wait for a replica")
    memory_mb: int = Field(1024, ge=16, description="held by the requests at a replica, in MiB; those of a key: half")
    retry_after_seconds: float = Field(1, ge=0, description="the Retry-After of a 503")


class Batching(Section):
    """Requests that come together and ask the same of the same model are computed together."""

    max_rows: int = Field(32, ge=1, le=4096, description="inputs computed at once; a larger request is refused")
    parallel: int = Field(
        2, ge=1, le=64, description="batches computed at the same time, so that a long one blocks none"
    )


class Models(Section):
    """Models in the memory of a replica. The one unused for longest leaves when there are too many."""

    loaded: int = Field(16, ge=1, le=10_000, description="models in memory")
    loaded_mb: int = Field(2048, ge=1, description="their weights in MiB")
    refresh_seconds: float = Field(2, ge=0, description="how old the list of the models in the store may be")
    trusted: tuple[str, ...] = Field((), description="packages besides Assay's own whose architectures may be built")


class Limits(Section):
    """What one request may ask for."""

    body_mb: float = Field(16, gt=0, le=1024, description="its body in MiB, also after unpacking; beyond: 413")
    iterations: int = Field(10_000, ge=1, description="iterations of a recurrent network")
    gmacs: float = Field(2_000, gt=0, description="its work: 10^9 multiplications, positions x iterations x weights")
    seconds: float = Field(120, gt=0, description="its time of computation")
    streams: int = Field(4, ge=1, le=1000, description="streamed answers at a replica at once; of a key half")
    stream_values: int = Field(50_000_000, ge=1, description="numbers in one streamed answer: positions x iterations")
    pixels: int = Field(25_000_000, ge=1, description="pixels of an uploaded image, before it is resized")
    sound_seconds: float = Field(60, gt=0, le=60, description="length of a sound")
    map_values: int = Field(20_000_000, ge=1, description="numbers in an answer that has some for each pixel")

    @property
    def body_bytes(self) -> int:
        return int(self.body_mb * 2**20)


class Attacks(Section):
    """Attacks on the models, in processes of their own so that inference does not wait, and what one may ask for."""

    enabled: bool = Field(True, description="whether attacks are offered, and sonification by the same processes")
    replicas: Replicas = Field(Replicas(target_ongoing=2), description="processes that attack and sonify; as above")
    queue: Queue = Field(Queue(ongoing=8, waiting=8, retry_after_seconds=5), description="as above")
    parallel: int = Field(1, ge=1, le=64, description="requests computed at a replica at the same time")
    rows: int = Field(64, ge=1, le=4096, description="images in one attack")
    pixels: int = Field(262_144, ge=1, description="pixels of all images in one attack on maps of labels")
    patch_pixels: int = Field(
        2_500_000, ge=1, description="pixels of all images in one attack on a detector, and of all patches on them"
    )
    passes: int = Field(20_000, ge=1, description="forward and backward passes for each image")
    gmacs: float = Field(10_000, gt=0, description="its work: 10^9 multiplications, images x passes x those of a pass")
    seconds: float = Field(240, gt=0, description="its time of computation")

    @property
    def most_of_key(self) -> int:
        """How many of one key are accepted at once: half of those that are computed or wait."""
        return max(1, (self.queue.ongoing * self.replicas.max + self.queue.waiting) // 2)


class Sonification(Section):
    """Sounds that excite what a network has learnt, computed where attacks are, and what one request may ask for."""

    enabled: bool = Field(True, description="whether it is offered, where attacks are")
    sound_seconds: float = Field(20, gt=0, le=60, description="length of all sounds of a request together")
    steps: int = Field(2_000, ge=1, le=100_000, description="gradient steps of a sound")
    gmacs: float = Field(10_000, gt=0, description="its work: 10^9 multiplications, sounds x passes x those of a pass")
    seconds: float = Field(240, gt=0, description="its time of computation")


class Logging(Section):
    level: str = Field("WARNING", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="of what is logged by Serve")
    access: bool = Field(False, description="one line for each request, at level INFO: path, key, status, time")


class ServeSettings(Section):
    """Everything that `assay serve` can be told."""

    http: Http = Field(Http(), description="where the endpoints listen")
    grpc: Grpc | None = Field(None, description="the Open Inference Protocol over gRPC as well; none: over HTTP alone")
    metrics: Metrics = Field(Metrics(), description="where Prometheus finds the metrics")
    connections: Connections = Field(Connections(), description="how many, how slow and how large its clients may be")
    keys: tuple[Key, ...] = Field((), max_length=256, description="who may use the endpoints; none: everybody")
    proxy: Literal["auto", "haproxy", "serve"] = Field(
        "auto",
        description="in front of the replicas: HAProxy, Serve's own, or (auto) HAProxy where it is installed, Ray is "
        "embedded, and neither TLS nor gRPC is asked for",
    )
    replicas: Replicas = Field(Replicas(), description="processes that hold models")
    queue: Queue = Field(Queue(), description="how many requests wait")
    batching: Batching = Field(Batching(), description="requests computed together")
    models: Models = Field(Models(), description="models in memory")
    limits: Limits = Field(Limits(), description="what one request may ask for")
    attacks: Attacks = Field(Attacks(), description="attacks on the models")
    sonification: Sonification = Field(Sonification(), description="sounds for what networks that listen have learnt")
    logging: Logging = Field(Logging(), description="what is logged")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.limits.streams >= self.queue.ongoing:
            raise FieldError(
                "queue.ongoing", f"be above {self.limits.streams}, which is limits.streams", self.queue.ongoing
            )
        names = [key.name for key in self.keys]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"keys: {repeated[0]!r} is given twice")
        if self.proxy == "haproxy" and self.http.tls:
            raise ValueError("http.tls is for proxy: serve; with haproxy put a proxy in front that speaks TLS")
        if self.proxy == "haproxy" and self.grpc:
            raise ValueError("grpc is for proxy: serve; it does not go with haproxy")
        if self.grpc and self.grpc.port == self.http.port:
            raise FieldError("grpc.port", "be another than http.port", self.grpc.port)
        if self.metrics.port in (self.http.port, self.grpc and self.grpc.port):
            raise FieldError("metrics.port", "be another than http.port and grpc.port", self.metrics.port)
        return self

    @property
    def switched_off(self) -> tuple[str, ...]:
        """The actions that no model is offered with."""
        if not self.attacks.enabled:
            return "attack", "sonify"
        return () if self.sonification.enabled else ("sonify",)

    def for_attacks(self) -> Self:
        """The settings of a replica that attacks: the same but for its own size and queue."""
        return self.model_copy(update={"replicas": self.attacks.replicas, "queue": self.attacks.queue})

    def listening(self, host: str | None, port: int | None, metrics_port: int | None) -> "ServeSettings":
        """The same settings with other addresses; None leaves one as it is."""
        tree = self.model_dump()
        for section, name, value in (
            ("http", "host", host),
            ("http", "port", port),
            ("metrics", "port", metrics_port),
        ):
            if value is not None:
                tree[section][name] = value
        return validate(ServeSettings, tree, "")


def load_settings(path: str | None) -> ServeSettings:
    """Read a settings file; None gives the defaults. SpecError, one sentence, names the file and the field."""
    if path is None:
        return ServeSettings()
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read the settings {path}: {error.strerror or error}") from error
    try:
        return parse_settings(text)
    except SpecError as error:
        raise SpecError(f"{path}: {error.message}", error.hint) from error


def parse_settings(text: str | bytes) -> ServeSettings:
    """Settings from YAML; an empty document gives the defaults."""
    tree = yaml_text.parse(text)
    if tree is None:
        return ServeSettings()
    if not isinstance(tree, dict):
        raise SpecError("settings are a mapping of fields")
    return validate(ServeSettings, tree, "")
