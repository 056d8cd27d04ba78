"""A trained network in a spec: by its name in the model store, or by the import path of what builds it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from pydantic import Field, JsonValue, model_validator
from torch import nn

from jobs.common.data.images.base import ImageSet
from jobs.common.imports import resolve
from jobs.common.models.architectures import own_network, weights_from
from jobs.common.params import StudyParams
from service.errors import InputError
from service.models import ModelCard, parse_reference
from service.run import Run


@dataclass(frozen=True)
class ReferredModel:
    """What a reference stands for. The network is in evaluation mode, on the CPU."""

    name: str
    """NAME/VERSION in the store, or the import path"""
    network: nn.Module
    card: ModelCard | None
    """None if it is not from the store"""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Their names by the network's outputs, as its card says; None if nothing does."""
        names = self.card.settings.get("classes") if self.card is not None else None
        return tuple(map(str, names)) if isinstance(names, list) else None

    def compare_shape(self, images: ImageSet, run: Run) -> None:
        """Warn if the images are of another shape than those that the model was evaluated on, as its card says."""
        shape = self.card.inputs[0].shape[1:] if self.card is not None and self.card.inputs else ()
        if len(shape) == 3 and -1 not in shape and shape != images.shape:
            sizes = " and ".join("x".join(map(str, each)) for each in (images.shape, shape))
            run.warn(f"images of {images.name} and those that model {self.name!r} was evaluated on differ: {sizes}")

    def check_task(self, task: str) -> None:
        """InputError if the card says that the model does something else."""
        if self.card is not None and self.card.task != task:
            raise InputError(f"the task of model {self.name!r} must be {task}; it is {self.card.task}")


class ModelReference(StudyParams):
    """A network that is there already."""

    name: str = Field(
        min_length=1,
        description="NAME (its newest version) or NAME/VERSION in the model store, or an import path "
        "mypackage.module:build, called with the options, which returns a torch module with its weights",
    )
    options: dict[str, JsonValue] = Field({}, description="keyword arguments of an import path")
    trusted: tuple[str, ...] = Field(
        (), description="packages besides Assay's own whose architectures a model of the store may name"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if ":" in self.name:
            return self
        if self.options:
            raise ValueError(f"options: the model {self.name!r} of the store has its own, an import path takes some")
        try:
            parse_reference(self.name)
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def load(self, run: Run) -> ReferredModel:
        """Find and load it. ModelNotFoundError names the nearest in the store; InputError: the import path is wrong."""
        if ":" in self.name:
            return ReferredModel(self.name, self.built(run.seed_for("model")), None)
        network, card = run.load_model(self.name, self.trusted)
        return ReferredModel(f"{card.name}/{card.version}", network, card)

    def built(self, seed: int) -> nn.Module:
        """What the import path builds, on the CPU. seed: of weights, should it draw some. InputError if it is wrong."""
        build: Callable[..., object] = resolve(self.name, {}, "model")
        try:
            with weights_from(seed):
                network = build(**self.options)
        except TypeError as error:
            raise InputError(f"model {self.name!r} refuses its options {self.options}: {error}") from error
        except Exception as error:  # whatever a function of the user's own raises, such as for weights that are absent
            raise InputError(f"model {self.name!r} cannot be built: {type(error).__name__}: {error}") from error
        return own_network(network, f"model {self.name!r}").cpu().eval()
