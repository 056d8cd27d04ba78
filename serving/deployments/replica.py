"""How a replica begins: its threads, its own port, and the device that its deployment reserved."""

import sys
from typing import Any

import ray
import torch
from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve._private import replica as serve_replica

from service.execution.devices import reservation
from serving.http.settings import Replicas

# How long a thread that wants the interpreter's lock waits for another that keeps it. One that computes wants it again
# after each operation of torch: with Python's 5 ms a busy event loop would hold it up for most of the time.
SWITCH_SECONDS = 0.001


def prepare_process(replicas: Replicas, field: str) -> torch.device:
    """Set the threads of the numerics. Returns the device: a GPU if the settings reserve one, else the CPU.

    field: of `replicas` in the settings. ClusterError, one sentence, if a GPU is reserved and torch cannot use one.
    """
    serve_replica.add_port_to_grpc_server = _listen_at_node  # type: ignore[attr-defined]
    sys.setswitchinterval(SWITCH_SECONDS)
    torch.set_num_threads(replicas.threads)  # Ray reuses workers, whatever was set in them before
    with reservation(replicas.gpus, f"{field}.gpus") as device:
        return device


def _listen_at_node(server: Any, address: str) -> int:
    """How Serve opens the port of a replica for its other processes, after its constructor. Alone it would on all."""
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    host = f"[{host}]" if ":" in host else host
    port: int = add_port_to_grpc_server(server, f"{host}:0")  # type: ignore[no-untyped-call]
    return port
