"""What a spec of the study says."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from jobs.common.attacks import PGD, AttackParams, Ball, Norm
from jobs.common.data.images import DataParams
from jobs.common.params import ONCE, Name, StudyParams
from jobs.inevitability.ceilings.bound_params import BoundParams
from jobs.inevitability.ceilings.concentration_params import ConcentrationParams
from jobs.inevitability.generated.generator_params import GeneratedParams
from jobs.inevitability.network_params import NetworkParams, TrainedNetwork
from jobs.inevitability.resolutions import ORDERS
from jobs.inevitability.spheres.sphere_params import SpheresParams
from service.errors import FieldError
from service.models import check_name

Epsilons = Annotated[tuple[float, ...], Field(min_length=1, max_length=100), ONCE]


class CurveParams(StudyParams):
    """How susceptibility curves are measured."""

    attacks: dict[Name, AttackParams] = Field(
        {"pgd": PGD(steps=30, step_size=0.125)}, min_length=1, description="attacks by a name of your choice"
    )
    fixed: bool = Field(
        False, description="at higher resolutions also measure the epsilons as they are, not scaled as images are"
    )


class Budget(StudyParams):
    """A perturbation of one norm and size."""

    norm: Norm = Field("Linf", description="how the size of a perturbation is measured")
    epsilon: float = Field(gt=0, description="the size, for pixels in [0, 1]")
    attack: AttackParams = Field(PGD(steps=50, step_size=0.1), description="how it is looked for")

    @model_validator(mode="after")
    def _of_the_norm(self) -> Self:
        Ball(self.norm, self.epsilon)
        return self


class ExampleParams(StudyParams):
    """Images, and what perturbations of several kinds make of them."""

    network: Name | None = Field(None, description="the network that is to be deceived; none: the first one")
    images: int = Field(4, ge=1, le=12, description="images in the picture, the first that are classified correctly")
    budgets: Annotated[tuple[Budget, ...], ONCE] = Field(
        min_length=1, max_length=6, description="columns of the picture"
    )


class Params(StudyParams):
    """A data set, networks, and what is measured of them. Sections that are left out are not measured."""

    data: DataParams = Field(DataParams(), description="the images; those to test are attacked")
    networks: dict[Name, NetworkParams] = Field({}, description="networks by a name of your choice")
    epsilons: dict[Norm, Epsilons] = Field(
        {"Linf": (0.05, 0.1, 0.15, 0.2)},
        min_length=1,
        description="sizes of perturbations by norm, at resolution 1, for pixels in [0, 1]: 8 of 255 is 0.03137; in L0 "
        "a number of coordinates, a channel of a pixel each",
    )
    resolutions: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], ONCE] = Field(
        (1,),
        min_length=1,
        description="how many times pixels are replicated in each direction; networks are trained anew for each",
    )
    averaged: bool = Field(
        False, description="at higher resolutions also measure the networks of resolution 1 behind an average of blocks"
    )
    slice: int = Field(
        100, ge=1, le=100_000, description="images in a cell, at most, attacked at once; results depend on it"
    )
    curves: CurveParams | None = Field(None, description="how curves are measured; none: they are not")
    bounds: BoundParams | None = Field(None, description="ceilings by the theorems; none: they are left out")
    concentration: ConcentrationParams | None = Field(
        None, description="ceilings by the concentration of the data; none: they are left out"
    )
    examples: ExampleParams | None = Field(None, description="a picture of perturbed images; none: no picture")
    generated: GeneratedParams | None = Field(
        None, description="networks on images that a generator makes, and their ceiling; none: they are left out"
    )
    spheres: SpheresParams | None = Field(
        None, description="networks for concentric spheres, where the theorem holds exactly; none: they are left out"
    )

    @field_validator("epsilons")
    @classmethod
    def _radii(cls, epsilons: dict[Norm, tuple[float, ...]]) -> dict[Norm, tuple[float, ...]]:
        """Of the norm; ascending from here on."""
        for norm, radii in epsilons.items():
            for epsilon in radii:
                try:
                    Ball(norm, epsilon)
                except FieldError as error:
                    raise FieldError(norm, error.requirement, error.value, error.hint) from error
        return {norm: tuple(sorted(radii)) for norm, radii in epsilons.items()}

    @field_validator("resolutions")
    @classmethod
    def _ascending(cls, resolutions: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(resolutions))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """What is named exists, and the parts know each other."""
        if self.averaged and self.resolutions[0] != 1:
            raise FieldError("resolutions", "hold 1, where averaged networks come from", list(self.resolutions))
        if self.curves is not None:
            if not self.networks:
                raise FieldError("networks", "name at least one for curves", {})
            for norm in self.epsilons:
                if not self.attacks_of(norm):
                    raise FieldError("curves.attacks", f"hold an attack that knows {norm}", list(self.curves.attacks))
        if self.generated is not None:
            if self.curves is None:
                raise FieldError("curves", "be given, whose attacks generated images are attacked by", None)
            if "L2" not in self.epsilons:
                raise FieldError("epsilons", "hold L2, in which generated images are attacked", list(self.epsilons))
        if self.concentration is not None:
            for name, method in self.concentration.methods.items():
                if not any(method.knows(ORDERS[norm]) for norm in self.epsilons):
                    requirement = f"be a search that knows {' or '.join(self.epsilons)}, of epsilons"
                    raise FieldError(f"concentration.methods.{name}.kind", requirement, method.kind)
        if self.examples is not None:
            if self.examples.network not in (None, *self.networks) or not self.networks:
                raise FieldError("examples.network", "be one of networks", self.examples.network)
            for place, budget in enumerate(self.examples.budgets):
                if budget.norm not in budget.attack.norms:
                    field = f"examples.budgets.{place}.attack.kind"
                    raise FieldError(field, f"be an attack that knows {budget.norm}", budget.attack.kind)
        for name in self.trained:
            for resolution in self.resolutions:
                check_name(self.model_name(name, resolution), f"networks.{name}, as the name of the saved model,")
        return self

    @property
    def trained(self) -> dict[str, TrainedNetwork]:
        """The networks that the run trains."""
        return {name: each for name, each in self.networks.items() if isinstance(each, TrainedNetwork)}

    def attacks_of(self, norm: Norm) -> dict[str, AttackParams]:
        """The attacks for curves in a norm."""
        attacks = self.curves.attacks if self.curves is not None else {}
        return {name: attack for name, attack in attacks.items() if norm in attack.norms}

    def model_name(self, network: str, resolution: int) -> str:
        """Under which name a network that was trained is saved."""
        data = self.data.name.rpartition(":")[2]
        name = f"{data}-{network}" + (f"-x{resolution}" if resolution > 1 else "")
        return name.replace("_", "-").lower()
