"""How a replica begins: its threads, its own ports, and the device that its deployment reserved."""

from typing import Any

import ray
import torch
from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve._private import replica as serve_replica
from ray.serve._private.http_util import start_asgi_http_server
from ray.serve.config import HTTPOptions

from service.execution.devices import reservation
from serving.http.settings import Replicas


def prepare_process(replicas: Replicas, field: str) -> torch.device:
    """Set the threads of the numerics. Returns the device: a GPU if the settings reserve one, else the CPU.

    field: of `replicas` in the settings. ClusterError, one sentence, if a GPU is reserved and torch cannot use one.
    """
    serve_replica.add_port_to_grpc_server = _listen_at_node  # type: ignore[attr-defined]
    serve_replica.start_asgi_http_server = _serve_at_node  # type: ignore[assignment, attr-defined]
    torch.set_num_threads(replicas.threads)  # Ray reuses workers, whatever was set in them before
    with reservation(replicas.gpus, f"{field}.gpus") as device:
        return device


def _listen_at_node(server: Any, address: str) -> int:
    """How Serve opens the port of a replica for its other processes, after its constructor. Alone it would on all."""
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    host = f"[{host}]" if ":" in host else host
    port: int = add_port_to_grpc_server(server, f"{host}:0")  # type: ignore[no-untyped-call]
    return port


async def _serve_at_node(app: Any, options: HTTPOptions, **rest: Any) -> Any:
    """How Serve starts the HTTP server of a replica, for HAProxy. Alone it would listen where HAProxy does."""
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return await start_asgi_http_server(app, options.model_copy(update={"host": host}), **rest)
