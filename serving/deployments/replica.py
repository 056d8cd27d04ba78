"""How a replica begins: its threads, and the device that its deployment reserved."""

import torch

from service.execution.devices import reservation
from serving.http.settings import Replicas


def prepare_process(replicas: Replicas, field: str) -> torch.device:
    """Set the threads of the numerics. Returns the device: a GPU if the settings reserve one, else the CPU.

    field: of `replicas` in the settings. ClusterError, one sentence, if a GPU is reserved and torch cannot use one.
    """
    torch.set_num_threads(replicas.threads)  # Ray reuses workers, whatever was set in them before
    with reservation(replicas.gpus, f"{field}.gpus") as device:
        return device
