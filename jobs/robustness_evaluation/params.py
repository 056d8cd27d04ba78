"""What a spec of the study says."""

from typing import Annotated, Self

import torch
from pydantic import Field, field_validator, model_validator

from jobs.common.attacks import AttackParams, AutoAttack, Ball, Norm
from jobs.common.data.images import DataParams
from jobs.common.data.images.base import ImageSet, Part
from jobs.common.data.sets import Split
from jobs.common.models.network_params import StoredNetwork
from jobs.common.params import ONCE, Name, StudyParams
from jobs.common.robustness.outcomes import searches
from service.errors import FieldError


class Params(StudyParams):
    """One network, a set of images, and what is tried on them."""

    network: StoredNetwork = Field(description="the network to attack")
    data: DataParams = Field(DataParams(), description="the images")
    split: Split = Field("test", description="which part of the data set")
    first: int | None = Field(None, ge=1, description="images to attack, from the start of the set; none: all")
    norm: Norm = Field("Linf", description="how the size of a perturbation is measured")
    epsilons: Annotated[tuple[float, ...], ONCE] = Field(
        min_length=1, max_length=100, description="radii of the ball, for pixels in [0, 1]: 8 of 255 is 0.03137"
    )
    attacks: dict[Name, AttackParams] = Field(
        {"autoattack": AutoAttack()}, min_length=1, description="attacks by a name of your choice"
    )
    slice: int = Field(
        100, ge=1, le=100_000, description="images in a cell, at most, attacked at once; results depend on it"
    )
    show: int = Field(8, ge=0, le=16, description="images in the picture of adversarial images; 0: no picture")

    @field_validator("epsilons")
    @classmethod
    def _radii(cls, epsilons: tuple[float, ...]) -> tuple[float, ...]:
        """Above 0; ascending from here on."""
        if min(epsilons) <= 0:
            raise FieldError("", "be above 0", min(epsilons))
        return tuple(sorted(epsilons))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Every epsilon is one of the norm, and every attack knows the norm."""
        for epsilon in self.epsilons:
            try:
                Ball(self.norm, epsilon)
            except FieldError as error:
                raise FieldError("epsilons", error.requirement, error.value, error.hint) from error
        for name, attack in self.attacks.items():
            if self.norm not in attack.norms:
                raise FieldError(f"attacks.{name}.kind", f"be an attack that knows {self.norm}", attack.kind)
        return self

    def images(self) -> ImageSet:
        """InputError if there are fewer images than `first` asks for."""
        images = self.data.load(self.split)
        if self.first is not None:
            if self.first > len(images):
                count = f"{len(images)}, the number of images of {images.name} to {self.split}"
                raise FieldError("first", f"be at most {count}", self.first)
            images = Part(images, torch.arange(self.first))
        return images

    @property
    def searches(self) -> list[tuple[str, float]]:
        """Attack and epsilon of all that is computed."""
        return searches(self.attacks, self.epsilons)
