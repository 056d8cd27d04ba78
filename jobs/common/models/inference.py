"""A network in fewer operations, for many passes with the same weights: layers folded and fused, channels last.

    ready = for_inference(network, images)      the same logits within float rounding, without gradients
    ready = Inference(network)                  that for large images alone, made when the first of them comes

It is made from a trace, which holds fast to all that does not come from the images: to random numbers, to the state of
the network. So logits are compared, and a network that is random is left alone.
"""

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from jobs.common.models import fused_convolution, graph
from jobs.common.models.fused_convolution import LINEAR, FusedConvolution
from jobs.common.models.graph import RELU

TOLERANCE = 1e-4  # of the logits, by the largest
SUMS = (operator.add, torch.add, "add")
LARGE = 1 << 16  # pixels of the images of a pass; for fewer, what is fused takes longer to begin than it saves
TRIED = 128  # side of the part of an image that shows whether logits stay the same, in pixels


def for_inference(network: nn.Module, images: Tensor) -> nn.Module:
    """A network with the same logits within float rounding, which is faster; else, or on a GPU, the network itself.

    network: in evaluation mode; it is copied, as its weights are now. images: (batch, channels, height, width), a few
    that show whether logits stay the same. Those to come may be of any size that the network takes.
    """
    if images.device.type != "cpu":
        return network
    with torch.no_grad():
        try:
            ready = shortened(network, images, gradients=False)
            return network if ready is None or not within_rounding(ready(images), network(images)) else ready
        except RuntimeError:  # an image that the network does not take
            return network


class Inference(nn.Module):
    """A network whose passes over LARGE images on a CPU are those of `for_inference`.

    network: in evaluation mode, with weights that do not change from the first pass on; it takes parts of its images.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._ready: nn.Module | None = None

    def forward(self, images: Tensor) -> Tensor:
        """images: (batch, channels, height, width). Returns logits, without gradients where they are large."""
        network = self.network
        if images[:, 0].numel() >= LARGE and images.device.type == "cpu":
            if self._ready is None:
                self._ready = for_inference(network, images[:1, :, :TRIED, :TRIED])
            network = self._ready
        logits: Tensor = network(images)
        return logits


def shortened(network: nn.Module, images: Tensor, gradients: bool = True) -> nn.Module | None:
    """A copy in fewer operations; None if the network cannot be copied or, without gradients, traced.

    images: as the network takes them, a few. gradients: whether those of the images will be asked for.
    """
    try:
        copied = copy.deepcopy(network).requires_grad_(False)
    except RuntimeError:  # weights that are computed from others, as by weight normalisation
        return None
    with torch.no_grad():
        traced = graph.trace(copied)
        if traced is not None:
            copied = traced
            graph.fold(traced)
            if images.device.type == "cpu" and images.dtype is torch.float32 and fused_convolution.can_fuse():
                graph.fuse(traced, images, still=True)
                if not gradients:
                    _fuse_more(traced, images)
        elif not gradients:
            return None
    return (ChannelsLast(copied) if images.shape[1] > 1 else copied).eval()


def within_rounding(logits: Tensor, expected: Tensor) -> bool:
    """Whether logits are the same but for rounding."""
    return bool((logits - expected).abs().amax() <= TOLERANCE * expected.abs().amax())


def _fuse_more(traced: fx.GraphModule, images: Tensor) -> None:
    """What `graph.fuse` leaves, in place, float32: all without gradients, by weights that do not change any more.

    Convolutions that no ReLU follows, with the sum that does, if any; and ReLU with a batch norm, as a convolution of
    each channel alone, or with a transposed convolution.
    """
    ShapeProp(traced).propagate(images)
    for node in list(traced.graph.nodes):
        layer, follows = graph.module_of(traced, node), None
        if graph.is_plain(traced, node):
            assert isinstance(layer, nn.Conv2d)
            fused: nn.Module = FusedConvolution(layer, _shape(node.args[0]), LINEAR)
            if (other := _summand(traced, node)) is not None:
                node.args, follows = (node.args[0], other), node.next
        elif layer is not None and graph.calls(traced, node) == 1 and _rectified(traced, node):
            follows = next(iter(node.users))
            if type(layer) is nn.BatchNorm2d and layer.running_mean is not None:
                fused = FusedConvolution(_pointwise(layer), _shape(node.args[0]))
            elif type(layer) is nn.ConvTranspose2d:
                fused = FusedTransposed(layer)
            else:
                continue
        else:
            continue
        traced.set_submodule(str(node.target), fused)
        if follows is not None:
            follows.replace_all_uses_with(node)
            traced.graph.erase_node(follows)
    traced.recompile()


def _shape(node: Any) -> torch.Size:
    shape: torch.Size = node.meta["tensor_meta"].shape
    return shape


def _rectified(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether ReLU alone follows."""
    return len(node.users) == 1 and graph.does(traced, next(iter(node.users)), RELU, nn.ReLU)


def _summand(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """What the next node adds to this one, if that is all that becomes of it."""
    total = node.next
    if list(node.users) != [total] or not graph.does(traced, total, SUMS) or total.kwargs or len(total.args) != 2:
        return None
    one, two = total.args
    other = two if one is node else one
    if not isinstance(other, fx.Node) or other is node or "tensor_meta" not in other.meta:
        return None
    metas = [each.meta["tensor_meta"] for each in (node, other)]
    # a side of 1 may be one that is repeated in images of other sizes
    same = metas[0].shape == metas[1].shape and metas[0].dtype == metas[1].dtype and 1 not in metas[0].shape[2:]
    return other if same else None


def _pointwise(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Batch norm with the statistics that it has kept, as a convolution of each channel alone."""
    channels = norm.num_features
    convolution: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d, channels, channels, 1, groups=channels, bias=False
    )
    nn.init.ones_(convolution.weight)
    graph.fold_into(convolution, norm)
    return convolution


class FusedTransposed(nn.Module):
    """ReLU(transposed convolution(x)) as oneDNN computes it in one pass, where no gradients will be asked for."""

    def __init__(self, convolution: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.convolution = convolution
        assert not isinstance(convolution.padding, str)
        self.padding, self.stride = list(convolution.padding), list(convolution.stride)
        self.dilation, self.kernel = list(convolution.dilation), list(convolution.kernel_size)

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        one = self.convolution
        if torch.is_grad_enabled() and features.requires_grad:
            return functional.relu(one(features, output_size))
        added = one._output_padding(features, output_size, self.stride, self.padding, self.kernel, 2, self.dilation)
        output: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            *(features, one.weight, one.bias, self.padding, added, self.stride, self.dilation, one.groups),
            *("relu", [], ""),
        )
        return output


class ChannelsLast(nn.Module):
    """A network whose convolutions find the channels of a pixel side by side, behind images in the usual layout."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(_Layout.apply(images))
        return logits


class _Layout(torch.autograd.Function):
    """Channels last on the way in; on the way back, gradients in the usual layout."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()
