"""The Hessian of the mean loss by the weights: its extreme eigenvalues, near every point of a plane, and its axes.

Only products with vectors are ever computed, each by differentiating twice.

Source: Li et al. 2018, section 6 and figure 7 ("Are we really seeing convexity?").
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.func import functional_call

from jobs.common.models.weights import Direction
from jobs.loss_landscape.directions import Normalisation, rescale
from jobs.loss_landscape.evaluation import Loss, cross_entropy
from service.errors import InputError
from service.run import reserved_device

Product = Callable[[np.ndarray], np.ndarray]
"""A symmetric matrix as what it does to a vector: float64 (size,) -> (size,)"""

DENSE = 32  # matrices up to this size are written out: Lanczos iterations need more room than they leave


class Hessian:
    """The Hessian of the mean loss over a data set, at given weights, as a product with vectors.

    A vector holds the entries of the parameters `names`, one after the other. The mean is over images, whatever the
    batches: the released code sums the means of batches, so that its eigenvalues grow with the number of batches.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        weights: Mapping[str, Tensor] | None = None,
        names: Collection[str] | None = None,
        loss: Loss = cross_entropy,
        batch: int = 512,
    ) -> None:
        """network: evaluated in eval mode. images: (count, ...), labels: (count,), on its device.

        weights: parameters and buffers that replace the network's own, which are left alone. names: of the parameters
        to differentiate by; default: those of more than one dimension. InputError if there is none of these.
        """
        parameters = dict(network.named_parameters())  # tied ones once
        self.names = [name for name, each in parameters.items() if (each.dim() > 1 if names is None else name in names)]
        if not self.names or (names is not None and len(self.names) < len(set(names))):
            raise InputError(f"the network has no parameters {sorted(set(names or []) - set(self.names))} to move")
        if not 0 < len(images) == len(labels):
            raise InputError(f"a Hessian needs as many labels as images: {len(labels)} and {len(images)}")
        self._network = network.eval()
        own = {**parameters, **dict(network.named_buffers())}
        self._state = {name: (weights or {}).get(name, tensor).detach() for name, tensor in own.items()}
        self._images, self._labels, self._loss, self._batch = images, labels, loss, batch
        self.size = sum(self._state[name].numel() for name in self.names)

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """The product with a vector. Both float64 (size,); computed in the type of the weights."""
        moving = [self._state[name].clone().requires_grad_() for name in self.names]
        direction = list(self.unflatten(vector).values())
        total = [torch.zeros_like(each, dtype=torch.float64) for each in moving]
        for share in self._shares(moving):
            gradient = _gradient(share, moving, create_graph=True)
            slope = torch.stack([(each * along).sum() for each, along in zip(gradient, direction, strict=True)]).sum()
            for sum_so_far, product in zip(total, _gradient(slope, moving), strict=True):
                sum_so_far += product
        return torch.cat([each.reshape(-1) for each in total]).cpu().numpy()

    def mean_loss(self) -> float:
        """The mean loss over the data set at these weights."""
        with torch.no_grad():
            return sum(float(share) for share in self._shares([self._state[name] for name in self.names]))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters to differentiate by, at these weights."""
        return {name: self._state[name] for name in self.names}

    def unflatten(self, vector: np.ndarray) -> Direction:
        """A vector (size,) as a direction: one tensor for each of `names`, of its parameter's shape and type."""
        parts = np.split(vector, np.cumsum([weight.numel() for weight in self.weights.values()])[:-1])
        return {
            name: torch.from_numpy(part).view_as(weight).to(weight)
            for (name, weight), part in zip(self.weights.items(), parts, strict=True)
        }

    def _shares(self, moving: Sequence[Tensor]) -> Iterator[Tensor]:
        """What each batch adds to the mean loss over the data set."""
        state = self._state | dict(zip(self.names, moving, strict=True))
        for first in range(0, len(self._images), self._batch):
            labels = self._labels[first : first + self._batch]
            logits = functional_call(self._network, state, (self._images[first : first + self._batch],))
            losses = self._loss(logits, labels)
            if losses.shape != (len(labels),):
                raise InputError(f"a loss has one number for each of {len(labels)} images, not {tuple(losses.shape)}")
            yield losses.sum() / len(self._images)


@dataclass(frozen=True)
class Extremes:
    """The smallest and the largest eigenvalue. products: matrix-vector products that it took."""

    smallest: float
    largest: float
    products: int

    @property
    def ratio(self) -> float:
        """|smallest / largest|: near 0 where the loss is nearly convex; NaN if all eigenvalues are zero."""
        return abs(self.smallest / self.largest) if self.largest else (float("inf") if self.smallest else float("nan"))


def extreme_eigenvalues(product: Product, size: int, *, seed: int, tolerance: float = 0.01) -> Extremes:
    """Both ends of a symmetric matrix's spectrum, by Lanczos iterations.

    The eigenvalue of largest magnitude is one end. Shifted by it, the matrix has eigenvalues of one sign, and the one
    of largest magnitude is the other end. (The released code shifts by 0.51 of it, which returns the first end again
    where all eigenvalues are alike.) tolerance: relative to the width of the spectrum, or to the largest magnitude.
    FloatingPointError if a product is not finite; scipy's ArpackNoConvergence if the iterations do not settle.
    """
    counted = _Counted(product, size)
    start = _start(size, seed)
    if not counted(start).any():  # a random vector is not orthogonal to anything: the matrix is zero
        return Extremes(0.0, 0.0, counted.calls)
    if size <= DENSE:
        values = np.linalg.eigvalsh(_dense(counted, size))
        return Extremes(float(values[0]), float(values[-1]), counted.calls)
    operator = LinearOperator((size, size), matvec=counted, dtype=np.float64)
    options: dict[str, Any] = {"k": 1, "which": "LM", "tol": tolerance, "v0": start, "return_eigenvectors": False}
    one = float(eigsh(operator, **options)[0])
    shifted = LinearOperator((size, size), matvec=lambda vector: counted(vector) - one * vector, dtype=np.float64)
    other = float(eigsh(shifted, **options)[0]) + one
    return Extremes(min(one, other), max(one, other), counted.calls)


def top_eigenvectors(
    product: Product, size: int, count: int, *, seed: int, tolerance: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues of largest magnitude, the largest first, and their vectors of length 1.

    Returns float64 (count,) and (count, size). The sign of a vector is chosen so that its largest entry is positive.
    InputError if the matrix has fewer; FloatingPointError and ArpackNoConvergence as for `extreme_eigenvalues`.
    """
    if not 1 <= count <= size:
        raise InputError(f"{count} eigenvectors are not to be had of a Hessian by {size} weights")
    counted = _Counted(product, size)
    if size <= max(DENSE, 2 * count):
        values, vectors = np.linalg.eigh(_dense(counted, size))
    else:
        operator = LinearOperator((size, size), matvec=counted, dtype=np.float64)
        values, vectors = eigsh(operator, k=count, which="LM", tol=tolerance, v0=_start(size, seed))
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    chosen = vectors[:, order].T
    largest = chosen[np.arange(count), np.abs(chosen).argmax(1)]
    return values[order], chosen * np.sign(largest)[:, None]


def eigenvector_axes(
    hessian: Hessian, count: int = 2, *, normalisation: Normalisation = "none", seed: int, tolerance: float = 0.01
) -> tuple[np.ndarray, list[Direction]]:
    """The directions in which the loss bends most, as axes of a surface: eigenvalues (count,) and directions.

    A direction moves the parameters of the Hessian and no others. Without normalisation its length is 1; with `filter`
    or another, its weights are rescaled like those of a random direction, and it is an eigenvector no longer.
    """
    values, vectors = top_eigenvectors(hessian, hessian.size, count, seed=seed, tolerance=tolerance)
    weights = hessian.weights
    return values, [
        {
            name: rescale(part, weights[name], normalisation) if part.ndim > 1 else part
            for name, part in hessian.unflatten(vector).items()
        }
        for vector in vectors
    ]


@dataclass(frozen=True)
class Neighbourhood:
    """What is shared by all points of a curvature map. axes: one or two directions, keyed like the state_dict."""

    network: nn.Module
    axes: Sequence[Mapping[str, Tensor]]
    images: Tensor
    labels: Tensor
    seed: int
    loss: Loss = cross_entropy
    tolerance: float = 0.01
    batch: int = 512
    names: Collection[str] | None = None


def curvature_at(point: Sequence[float], shared: Neighbourhood) -> dict[str, float]:
    """A cell of a curvature map: the loss and the extreme eigenvalues of its Hessian at a point of the plane.

    point: one coordinate an axis. Returns loss, smallest, largest, ratio and products; where the loss or a derivative
    of it is not finite, eigenvalues and ratio are NaN.
    """
    device = reserved_device()
    network = shared.network.to(device)
    centre = network.state_dict()
    steps = list(zip(point, shared.axes, strict=True))
    weights = {
        name: tensor + sum(step * axis[name].to(tensor) for step, axis in steps if name in axis)
        for name, tensor in centre.items()
        if any(name in axis for axis in shared.axes)
    }
    hessian = Hessian(
        network,
        shared.images.to(device),
        shared.labels.to(device),
        weights=weights,
        names=shared.names,
        loss=shared.loss,
        batch=shared.batch,
    )
    loss = hessian.mean_loss()
    nan = float("nan")
    try:
        found = extreme_eigenvalues(hessian, hessian.size, seed=shared.seed, tolerance=shared.tolerance)
    except FloatingPointError:
        return {"loss": loss, "smallest": nan, "largest": nan, "ratio": nan, "products": 0}
    ends = {"smallest": found.smallest, "largest": found.largest, "ratio": found.ratio}
    return {"loss": loss, **ends, "products": found.products}


class _Counted:
    """A product that counts its calls and refuses to go on with numbers that are not finite."""

    def __init__(self, product: Product, size: int) -> None:
        self._product, self._size = product, size
        self.calls = 0

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        self.calls += 1
        result = self._product(vector.reshape(self._size))
        if not np.isfinite(result).all():
            raise FloatingPointError("the product of the Hessian with a vector is not finite")
        return result


def _gradient(value: Tensor, moving: Sequence[Tensor], create_graph: bool = False) -> Sequence[Tensor]:
    """The gradient of a number; zero by what it does not depend on: the slope of a linear loss is the same anywhere."""
    if not value.requires_grad:
        return [torch.zeros_like(each) for each in moving]
    return torch.autograd.grad(value, moving, create_graph=create_graph, allow_unused=True, materialize_grads=True)


def _start(size: int, seed: int) -> np.ndarray:
    """Where the iterations start: without it, scipy would draw anew at every call."""
    start: np.ndarray = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).numpy()
    return start


def _dense(product: Product, size: int) -> np.ndarray:
    """The matrix itself, made symmetric, as its rounding may not be."""
    columns = np.stack([product(unit) for unit in np.eye(size)])
    symmetric: np.ndarray = (columns + columns.T) / 2
    return symmetric
