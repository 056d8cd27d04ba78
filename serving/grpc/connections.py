"""The connections of every gRPC server of Serve: bounded as those of its HTTP servers, and at the same address.

Serve itself would listen on every address, in plain text, for any number of clients, and unpack a message to any size.
It passes on no options for this.
"""

import grpc
from ray.serve._private import default_impl
from ray.serve._private.constants import DEFAULT_GRPC_SERVER_OPTIONS

from serving.http.settings import Http, ServeSettings

CALLS = 128  # at once on one connection
IDLE_SECONDS = 60  # after which a connection without calls is closed; clients open it again by themselves
UNCOMPRESSED = 1  # a set of bits: of the ways of packing a message, none. gRPC would unpack before it asks for the size

Option = tuple[str, int]


def install(settings: ServeSettings) -> None:
    """Let all gRPC servers that Serve starts in this process from now on listen and be bounded like this."""
    DEFAULT_GRPC_SERVER_OPTIONS[:] = options(settings)

    def add_grpc_address(grpc_server: grpc.aio.Server, server_address: str) -> None:
        _listen(grpc_server, server_address, settings.http)

    default_impl.add_grpc_address = add_grpc_address


def is_installed(settings: ServeSettings) -> bool:
    return bool(options(settings) == DEFAULT_GRPC_SERVER_OPTIONS)


def options(settings: ServeSettings) -> list[Option]:
    """The options of gRPC for a server."""
    limits = settings.connections
    return [
        ("grpc.max_receive_message_length", settings.limits.body_bytes),
        ("grpc.max_send_message_length", -1),  # an answer is bounded by what may be asked for
        ("grpc.max_metadata_size", limits.header_bytes),
        ("grpc.absolute_max_metadata_size", limits.header_bytes),
        ("grpc.max_concurrent_streams", CALLS),
        ("grpc.max_allowed_incoming_connections", limits.open),
        ("grpc.server_handshake_timeout_ms", round(1000 * limits.header_seconds)),
        ("grpc.compression_enabled_algorithms_bitset", UNCOMPRESSED),
        ("grpc.max_connection_idle_ms", 1000 * IDLE_SECONDS),
        ("grpc.keepalive_time_ms", round(1000 * limits.unread_seconds)),
        ("grpc.keepalive_timeout_ms", round(1000 * limits.unread_seconds)),
    ]


def _listen(server: grpc.aio.Server, address: str, http: Http) -> None:
    """address: as Serve gives it, of which only the port counts."""
    host = f"[{http.host}]" if ":" in http.host else http.host
    address = f"{host}:{address.rpartition(':')[2]}"
    if http.tls is None:
        server.add_insecure_port(address)
        return
    with open(http.tls.private_key, "rb") as private_key, open(http.tls.certificate, "rb") as certificate:
        credentials = grpc.ssl_server_credentials([(private_key.read(), certificate.read())])
    server.add_secure_port(address, credentials)
