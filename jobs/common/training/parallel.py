"""Training on batches that several processes share, each taking some of the rows (data parallelism).

`torch.distributed` holds the processes together; the service starts them (`resources.workers`). Without a process
group there is one process, it has all rows, and everything here is the identity: a study is written once for both.

    images, labels = parallel.share(images), parallel.share(labels)       # this rank's rows of the global batch
    loss = parallel.part_of_mean(cross_entropy(network(images), labels), len(images), batch)
    loss.backward()                                                       # also right for gradients of the inputs
    parallel.sum_gradients(network.parameters())                          # those of the mean over the global batch
    told = parallel.total(loss.detach())                                  # the mean itself, on every rank

Every rank has the same weights and the same random streams: what is drawn for a batch (noise, augmentation) is drawn
for the global batch and then shared. What adds up over ranks is added in float arithmetic, in an order of its own:
results equal those of one process within its tolerance, not bit by bit.

Each function but `rank`, `world` and `share` is collective: a rank that leaves one out makes the others wait for ever.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from service.errors import InputError


def rank() -> int:
    """Which of the processes this is: 0 to world() - 1."""
    return distributed.get_rank() if _grouped() else 0


def world() -> int:
    """How many processes share a batch."""
    return distributed.get_world_size() if _grouped() else 1


def share(batch: Tensor) -> Tensor:
    """This rank's rows of a global batch, in order; the first ranks have one more if they do not divide evenly.

    batch: (rows, ...), the same on every rank. InputError if there are fewer rows than ranks.
    """
    if len(batch) < world():
        raise InputError(f"a batch of {len(batch)} cannot be shared by {world()} workers: each needs a row")
    return torch.tensor_split(batch, world())[rank()]


def part_of_mean(mean: Tensor, rows: int, rows_of_all: int) -> Tensor:
    """What a mean over this rank's rows adds to the mean over the global batch.

    To be applied to a loss before its gradients are taken: batch statistics make the loss of one rank depend on the
    rows of another, so that gradients weighted afterwards would be wrong where ranks have unequal numbers of rows.
    """
    return mean if rows == rows_of_all else mean * (rows / rows_of_all)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all ranks, in one message for each type and device.

    parameters: in the same order on every rank, with gradients at the same ones.
    """
    if world() == 1:
        return
    alike: dict[Any, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            alike[parameter.grad.dtype, parameter.grad.device].append(parameter.grad)
    for gradients in alike.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        ends = accumulate(gradient.numel() for gradient in gradients)
        for gradient, end in zip(gradients, ends, strict=True):
            gradient.copy_(flat[end - gradient.numel() : end].view_as(gradient))


def total(values: Tensor) -> Tensor:
    """The sum over all ranks, of the same shape, with a gradient. values: of the same shape on every rank."""
    summed: Tensor = _Total.apply(values) if world() > 1 else values
    return summed


def gather(rows: Tensor) -> Tensor:
    """The rows of all ranks, by rank, on every rank: what `share` takes apart. No gradient.

    rows: (rows, ...); the number of rows may differ between ranks.
    """
    if world() == 1:
        return rows
    counts = [torch.zeros((), dtype=torch.int64, device=rows.device) for _ in range(world())]
    distributed.all_gather(counts, torch.tensor(len(rows), device=rows.device))
    most = max(int(count) for count in counts)
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in range(world())]
    distributed.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def sentences(own: Sequence[str]) -> list[str]:
    """What all ranks have to say, by rank, on every rank. own: of this rank, without line ends."""
    if world() == 1:
        return list(own)
    text = "".join(f"{sentence}\n" for sentence in ("", *own))  # of no rank nothing at all
    everything = gather(torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8))
    return [sentence for sentence in bytes(everything.tolist()).decode().split("\n") if sentence]


class SyncedBatchNorm(_BatchNorm):
    """Batch normalisation with the statistics of the global batch, in any number of dimensions and on any device.

    Forward, backward and running statistics are those of `torch.nn.BatchNorm1d` to `3d` in one process; the ranks may
    have unequal numbers of rows. Source: Ioffe & Szegedy 2015, algorithm 1; `torch.nn.SyncBatchNorm` needs a GPU.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: (batch, channels, ...). Returns the same shape."""
        if world() == 1 or not (self.training or self.running_mean is None):
            return super().forward(inputs)
        self._check_input_dim(inputs)
        others = [axis for axis in range(inputs.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(inputs.dim())]  # (channels,) beside the inputs
        wide = inputs.to(torch.promote_types(inputs.dtype, torch.float32))

        here = wide.new_full((1,), inputs.numel() // self.num_features)
        summed = total(torch.cat([wide.sum(others), here]))  # (channels + 1,): one message for both
        count = summed[-1].detach()  # cut out of what has a gradient; running statistics must have none
        mean = summed[:-1] / count
        centred = wide - mean.view(shape)
        variance = total(centred.square().sum(others)) / count  # (channels,), biased
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        answer: Tensor = normalised.to(inputs.dtype)
        return answer

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics. momentum None: their mean over all batches so far."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None  # kept whenever the other two are
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            expected = f"(batch, {self.num_features}, ...)"
            raise ValueError(f"batch normalisation expects inputs of shape {expected}, not {tuple(input.shape)}")


def convert_batch_norm(network: nn.Module) -> nn.Module:
    """Give every batch normalisation the statistics of the global batch; weights and names stay the same.

    Returns the network, changed in place (or what replaces it, if it is a batch normalisation itself). With one
    process nothing is changed.
    """
    if world() == 1:
        return network
    if isinstance(network, _BatchNorm) and not isinstance(network, SyncedBatchNorm):
        synced = SyncedBatchNorm(
            network.num_features, network.eps, network.momentum, network.affine, network.track_running_stats
        )
        for name, parameter in network.named_parameters(recurse=False):
            setattr(synced, name, parameter)
        for name, buffer in network.named_buffers(recurse=False):
            setattr(synced, name, buffer)
        return synced.train(network.training)
    for name, child in network.named_children():
        setattr(network, name, convert_batch_norm(child))
    return network


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()


class _Total(torch.autograd.Function):
    """The sum over ranks. Each rank's loss has its own use of the sum, so the gradient is a sum over ranks as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0])
