"""A model made ready for thousands of passes: layers folded and fused, channels last, weights without gradients.

It is made from a trace, which holds fast to all that does not come from the images: to random numbers, to the state of
the model, and it leaves out what is about gradients alone, such as torch.no_grad(). So a model that is random must not
be prepared (`checks.randomised`), and gradients are compared, not only logits.

What such a model takes for a success may be none to the model itself, by rounding, which therefore has the last word:
after the attack (`attack_prepared`), or, in attacks for the least perturbation, on each point before it is recorded
(`searching_prepared`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn

from jobs.common.attacks.base import Attack, Model, Search
from jobs.common.models.inference import ChannelsLast, shortened, within_rounding
from jobs.common.models.windowed import Windowed, windowed

GRADIENT_TOLERANCE = 1e-3  # of the gradient of an image; of a few, rounding may turn a ReLU over
FEW = 8  # images that show whether a prepared model is right


def prepared(model: Model, images: Tensor) -> Model:
    """A model with the same logits and gradients within float rounding, which is faster; else the model itself.

    model: in evaluation mode, the same in each pass; a module is copied. images: (batch, channels, height, width), a
    few of those to come: a pass forward and back shows whether logits and gradients stay the same.
    """
    if not isinstance(model, nn.Module):
        return model
    ready = shortened(model, images)
    try:
        return ready if ready is not None and _same(ready, model, images) else model
    except RuntimeError:  # without a way back through it
        return model


def attack_prepared(attack: Attack, search: Search, ready: Model, seed: int) -> None:
    """Attack what remains by way of a prepared model; the model of the search has the last word on every sample.

    Successes that it denies are taken back, and these samples are attacked once more, with the model itself and the
    same seed: they may take more than `cost` says. The passes that ask for its word are not counted.

    ready: with nearly the same logits; or the model of the search, whose word stands from the beginning.
    """
    model, set_aside = search.model, search.set_aside
    search.model = ready
    attack.attack(search, search.generator(seed))
    search.model = model
    if ready is model:
        return
    denied = _denied(search)
    if len(denied):
        search.set_aside = torch.ones_like(set_aside).index_fill_(0, denied, False)
        attack.attack(search, search.generator(seed))
        search.set_aside = set_aside
        _denied(search)  # also of a success in a smaller batch, which is rounded otherwise


def _denied(search: Search) -> Tensor:
    """Let the model say which of the points kept, all of them in the ball, are at their goal.

    Returns the successes that are not: int64 (k,), rows.
    """
    with torch.no_grad():
        search.shares = search.goal.share(search.model(search.adversarials))
    reached = search.shares == 1
    denied = search.successful & ~reached
    search.minimum_distances[denied] = torch.inf
    search.successful = reached
    return denied.nonzero().squeeze(1)


@contextmanager
def searching_prepared(search: Search) -> Iterator[None]:
    """Within, the search asks the prepared model; afterwards the model itself.

    For an attack that then asks for each point found, on its way to the least perturbation, before it records it: so
    no success is taken back, and these passes are part of its cost.

    Not for a search that averages or confirms, whose model is random. Of another random model a trace may hold fast to
    one draw: what is found then has to be confirmed by the model itself.
    """
    model = search.model
    if search.passes == 1 and not search.confirmations:
        search.model = prepared(model, search.images[:FEW])
    try:
        yield
    finally:
        search.model = model


def windows(model: Model, images: Tensor, side: int) -> Windowed | None:
    """Passes of a prepared model over square windows of its images; None for another model, or where they save little.

    Not on a GPU, where many small layers wait for one another.
    """
    network = model.network if isinstance(model, ChannelsLast) else model
    if not isinstance(network, fx.GraphModule) or images.device.type != "cpu":
        return None
    return windowed(network, images, side)


def _same(ready: nn.Module, model: nn.Module, images: Tensor) -> bool:
    """Whether the logits are near, and of half of the images the gradients of a weighted sum of these."""
    (logits, gradients), (expected, expected_gradients) = (_answers(each, images) for each in (ready, model))
    if expected_gradients is None or gradients is None or not within_rounding(logits, expected):
        return False
    apart = torch.linalg.vector_norm((gradients - expected_gradients).flatten(1), dim=1)
    near = apart <= GRADIENT_TOLERANCE * torch.linalg.vector_norm(expected_gradients.flatten(1), dim=1)
    return 2 * int(near.sum()) >= len(near)


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits, and the gradients by the images; None where the model cuts them off."""
    points = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(points)
        if not logits.requires_grad:
            return logits, None
        weights = torch.linspace(-1, 1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.dim() - 2))
        (gradients,) = torch.autograd.grad((logits * weights).sum(), points)
    return logits.detach(), gradients
