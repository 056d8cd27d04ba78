"""The search: a round tries many networks on all training images at once and keeps the best so far."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.models.stacked import stacked
from jobs.common.models.weights import tensors
from jobs.generalization.gradient_free.search_params import GuessAndCheck, Method, PatternSearch, SearchedNetwork
from service.errors import RunFailedError
from service.run import Run


@dataclass
class Best:
    """The best network so far."""

    weights: Tensor
    """float32 (weights,), all of them one after another"""
    loss: float
    """mean cross entropy on the training images"""
    accuracy: float
    """on these, a share"""
    step: float
    """of the next round"""
    rounds: int = 0


def search(network: nn.Module, images: Tensor, labels: Tensor, params: SearchedNetwork, run: Run) -> Best:
    """Search until every image is classified correctly or the rounds are over; the network gets the best weights.

    network: without batch norm, on the device of the images. Goes on from the run's checkpoint, if there is one. Logs
    search_loss and search_accuracy of the best so far, and networks_tried. RunFailedError if no loss is finite.
    """
    run.expect(params.rounds)
    best = _restored(run)
    if best is None:
        best = Best(torch.empty(0), torch.inf, 0.0, getattr(params.method, "step", 0.0))
    while best.rounds < params.rounds and best.accuracy < 1:
        stream = torch.Generator().manual_seed(run.seed_for("round", best.rounds))
        take_round(best, network, images, labels, params, stream)
        if best.rounds % params.report_every == 0 or best.rounds == params.rounds or best.accuracy == 1:
            run.log(
                step=best.rounds,
                search_loss=best.loss,
                search_accuracy=best.accuracy,
                networks_tried=best.rounds * params.networks,
            )
            run.checkpoint(vars(best), "search")
    if not len(best.weights):
        raise RunFailedError(
            f"of {best.rounds * params.networks:,} networks none has a finite loss", hint="a smaller bound may help"
        )
    _fill(network, best.weights)
    return best


def take_round(
    best: Best, network: nn.Module, images: Tensor, labels: Tensor, params: SearchedNetwork, stream: torch.Generator
) -> None:
    """Try a round's networks. Of equal accuracy 1 the lowest loss counts, else the lowest loss alone."""
    tried = proposals(best, sum(each.numel() for each in network.parameters()), params, stream)
    losses, shares = scores(network, tried, images, labels)
    fits = shares == 1
    chosen = int(torch.where(fits, losses, losses + 1e6 * bool(fits.any())).nan_to_num(torch.inf).argmin())
    best.rounds += 1
    if bool(fits.any()) or float(losses[chosen]) < best.loss:
        best.weights = tried[chosen].clone()
        best.loss, best.accuracy = float(losses[chosen]), float(shares[chosen])
    else:
        best.step *= getattr(params.method, "shrink", 1.0)


def proposals(best: Best, size: int, params: SearchedNetwork, stream: torch.Generator) -> Tensor:
    """The networks of a round: float32 (networks, size)."""
    count, method = params.networks, params.method
    if isinstance(method, GuessAndCheck) or not len(best.weights):
        return params.bound * (2 * torch.rand(count, size, generator=stream) - 1)
    return best.weights + best.step * changes(method, count, size, stream)


def changes(method: Method, count: int, size: int, stream: torch.Generator) -> Tensor:
    """Directions to try, float32 (count, size): single weights up or down, or Gaussian ones."""
    if not isinstance(method, PatternSearch):
        return torch.randn(count, size, generator=stream)
    directions = torch.zeros(count, size)
    chosen = torch.randint(size, (count, 1), generator=stream)
    signs = 2.0 * torch.randint(2, (count, 1), generator=stream) - 1
    return directions.scatter_(1, chosen, signs)


def scores(network: nn.Module, tried: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The mean cross entropy and the accuracy of each network, on the CPU: (networks,). tried: (networks, weights)."""
    parts, first = {}, 0
    for name, weight in network.named_parameters():
        part = tried[:, first : first + weight.numel()]
        parts[name] = part.reshape(len(tried), *weight.shape).to(images.device)
        first += weight.numel()
    with torch.no_grad():
        logits = stacked(network)(parts, images)  # (networks, images, classes)
        each = functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(tried)), reduction="none")
        right = (logits.argmax(-1) == labels).double().mean(1)
    return each.view(len(tried), -1).double().mean(1).cpu(), right.cpu()


def _restored(run: Run) -> Best | None:
    saved = run.restore("search")
    return None if saved is None else Best(**saved)


def _fill(network: nn.Module, weights: Tensor) -> None:
    first = 0
    with torch.no_grad():
        for weight in tensors(network, "weights").values():
            weight.copy_(weights[first : first + weight.numel()].view_as(weight))
            first += weight.numel()
