"""The network that segments, as a section of a study's parameters, and where its backbone's weights come from."""

from typing import Annotated, Any

import torch
from pydantic import Field, JsonValue
from torch import nn

from jobs.common.imports import name_of
from jobs.common.models.architectures import ArchitectureParams, weights_from
from jobs.common.models.fit import check_answer
from jobs.common.models.reference import ModelReference, ReferredModel
from jobs.common.training.optimizers import device_of
from jobs.stacked_unets.networks import ARCHITECTURES, segmenter
from service.errors import InputError
from service.run import Run


class NetworkParams(ArchitectureParams):
    """The network."""

    catalogue = "jobs.stacked_unets.networks"

    name: Annotated[str, name_of(ARCHITECTURES, "segmentation network")] = Field(
        "sunet_tiny",
        description=f"{', '.join(ARCHITECTURES)}, or an import path mypackage.module:build, which is called with "
        "classes, channels and the options",
    )
    options: dict[str, JsonValue] = Field(
        {}, description="keyword arguments of the network, e.g. {output_stride: 8, head: degridding}"
    )
    pretrained: ModelReference | None = Field(
        None, description="a trained model whose backbone this one begins with; none: fresh weights"
    )

    def arguments(self, classes: int) -> dict[str, Any]:
        """What the architecture is called with."""
        return {"classes": classes, "channels": 3, **self.options}

    def build(self, classes: int, seed: int) -> nn.Module:
        """The network with fresh weights, drawn from the seed. InputError if it refuses its arguments."""
        with weights_from(seed):
            return segmenter(self.name, **self.arguments(classes))

    def at_stride(self, network: nn.Module, classes: int, stride: int) -> nn.Module:
        """The same weights in a network of another output stride."""
        other = segmenter(self.name, **{**self.arguments(classes), "output_stride": stride})
        other.load_state_dict(network.state_dict())
        return other.to(device_of(network)).eval()

    def start(self, network: nn.Module, run: Run) -> None:
        """Give the network the backbone that it is to begin with. InputError if that is another one."""
        if self.pretrained is not None:
            load_backbone(network, self.pretrained.load(run))


def backbone_prefix(network: nn.Module) -> str:
    """What the names of the weights of the backbone begin with. All of them do in a network that names none."""
    return getattr(network, "backbone_prefix", "")


def load_backbone(network: nn.Module, source: ReferredModel) -> None:
    """Copy the weights of a backbone, those that have the same names, from a classifier or a segmenter.

    InputError unless the other one has the whole backbone, in the same shapes, behind the same normalisation.
    """
    prefix, given = backbone_prefix(network), source.network.state_dict()
    backbone = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(prefix)}
    if lacking := [name for name in backbone if name not in given]:
        raise InputError(
            f"pretrained {source.name!r} lacks {len(lacking)} of {len(backbone)} backbone weights, as {lacking[0]!r}",
            "a classifier of the same architecture has them",
        )
    for name, tensor in backbone.items():
        if given[name].shape != tensor.shape:
            shape, expected = tuple(given[name].shape), tuple(tensor.shape)
            raise InputError(f"pretrained {source.name!r}: {name!r} is of shape {shape}, not {expected}")
    if _normalisation(network) != _normalisation(source.network):
        raise InputError(
            f"pretrained {source.name!r} normalises images in another way", "give this network its mean and std"
        )
    network.load_state_dict({name: given[name] for name in backbone}, strict=False)


def _normalisation(network: nn.Module) -> tuple[str, list[Any]]:
    layer = getattr(network, "normalise", None)
    constants = [buffer.flatten().tolist() for buffer in layer.buffers()] if isinstance(layer, nn.Module) else []
    return type(layer).__name__, constants


def check_fit(network: nn.Module, classes: int, name: str) -> None:
    """InputError, one sentence, unless the network gives every pixel of an image of 64x48 logits of the classes."""
    network.eval()
    device = device_of(network)
    check_answer(
        lambda: network(torch.zeros(1, 3, 64, 48, device=device)), (1, classes, 64, 48), name, "an image of 64x48"
    )
