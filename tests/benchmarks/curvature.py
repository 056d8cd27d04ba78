"""How fast the Hessian is multiplied with vectors, on one core: products a second over images of digits.

In turn, so that ratios hold on a loaded machine: a vector at a time with the gradient computed for each, PyHessian (if
it is installed) over batches and over one batch, of which it keeps the gradient, and several vectors together. The work
is that of a spectral density: 4 probes, of which each takes a few steps.
"""

import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from jobs.common.curvature.hessian import Hessian
from jobs.common.curvature.lanczos import lanczos
from jobs.common.curvature.probes import rademacher
from jobs.common.models.classifiers import classifier

IMAGES, BATCH = 1000, 250
PROBES, STEPS = 4, 5
ROUNDS = 3


def plain_way(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Every product by itself, over all batches."""
    parameters = [each for each in network.parameters() if each.dim() > 1]
    for _ in range(PROBES * STEPS):
        vectors = [torch.randn_like(each) for each in parameters]
        for batch, classes in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            loss = functional.cross_entropy(network(batch), classes)
            gradient = torch.autograd.grad(loss, parameters, create_graph=True)
            torch.autograd.grad(gradient, parameters, grad_outputs=vectors)


def pyhessian(network: nn.Module, images: Tensor, labels: Tensor, batch: int) -> None:
    """As many products by the package, for the trace; its density does not run with torch of today."""
    from pyhessian import hessian

    criterion = nn.CrossEntropyLoss()
    if batch < len(images):
        loader = DataLoader(TensorDataset(images, labels), batch_size=batch)
        matrix = hessian(network, criterion, dataloader=loader, cuda=False)
    else:
        matrix = hessian(network, criterion, data=(images, labels), cuda=False)
    matrix.trace(maxIter=PROBES * STEPS, tol=-1.0)


def together(network: nn.Module, images: Tensor, labels: Tensor, batch: int) -> None:
    """A density, orthogonalisation and all."""
    hessian = Hessian(network, images, labels, batch=batch)
    lanczos(hessian, rademacher(hessian.size, range(PROBES)), STEPS)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = classifier("digits_net", classes=10, channels=1).eval()
    images, labels = torch.rand(IMAGES, 1, 8, 8), torch.randint(0, 10, (IMAGES,))
    ways: dict[str, Callable[[], None]] = {
        "(a) one at a time": lambda: plain_way(network, images, labels),
        f"together, batches of {BATCH}": lambda: together(network, images, labels, BATCH),
        "together, one batch": lambda: together(network, images, labels, IMAGES),
    }
    if find_spec("pyhessian") is None:
        print("(b) PyHessian: not installed")
    else:
        ways[f"(b) PyHessian, batches of {BATCH}"] = lambda: pyhessian(network, images, labels, BATCH)
        ways["(b) PyHessian, one batch"] = lambda: pyhessian(network, images, labels, IMAGES)
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, act in ways.items():
            began = time.process_time()
            act()
            least[name] = min(least[name], time.process_time() - began)
    for name, seconds in least.items():
        rate = PROBES * STEPS / seconds
        print(f"{name}: {rate:.1f} products/s, {least['(a) one at a time'] / seconds:.2f} of (a)")


if __name__ == "__main__":
    main()
