"""How a replica begins: its threads, and the device that its deployment reserved."""

import torch

from service.errors import ClusterError
from serving.http.settings import Replicas


def prepare_process(replicas: Replicas) -> torch.device:
    """Set the threads of the numerics, and find the device: a GPU if the settings reserve one, else the CPU.

    ClusterError if a GPU is reserved and torch cannot use it.
    """
    torch.set_num_threads(replicas.threads)  # Ray reuses workers, whatever was set in them before
    if not replicas.gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ClusterError(f"replicas.gpus: {replicas.gpus:g} is reserved, but torch can use no GPU here")
    return torch.device("cuda", torch.cuda.current_device())
