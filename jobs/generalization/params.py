"""What a spec of the study says."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.common.curvature.spectra_params import SpectraParams
from jobs.common.data.images import DataParams
from jobs.common.models.cards import PublishingParams
from jobs.common.models.network_params import NetworkFile, PublishedNetwork, StoredNetwork, TrainedNetwork
from jobs.common.params import StudyParams
from jobs.generalization.basins.basin_params import BasinParams
from jobs.generalization.gradient_free.search_params import SearchedNetwork
from jobs.generalization.margins import MarginParams
from jobs.generalization.minefield.minefield_params import MinefieldParams
from jobs.generalization.minima.poison_params import PoisonParams
from jobs.generalization.wiggle_params import WiggleParams
from service.errors import FieldError

NetworkParams = Annotated[
    TrainedNetwork | SearchedNetwork | StoredNetwork | PublishedNetwork | NetworkFile, Field(discriminator="kind")
]


class BoundaryParams(StudyParams):
    """A map of what the network says of the plane that its points lie in."""

    steps: int = Field(200, ge=2, le=2000, description="points of the map along each side of the frame of the data")


class Params(PublishingParams):
    """A network, how it came to its minimum, and what is measured there. Sections that are left out are not."""

    data: DataParams = Field(DataParams(), description="the images")
    untouched: int | None = Field(
        None, ge=1, description="images to test that are looked at once, at the end; none: half of them"
    )
    network: NetworkParams = Field(TrainedNetwork(), description="the network that is measured")
    poison: PoisonParams = Field(PoisonParams(), description="what its training is to get wrong")
    boundary: BoundaryParams | None = Field(None, description="the decision boundary, of points of the plane; none: no")
    margin: MarginParams | None = Field(
        None, description="how far training points of the plane are from the boundary; none: it is not measured"
    )
    spectra: SpectraParams | None = Field(
        None, description="eigenvalues, trace and density of the Hessian on training images, and sharpness; none: no"
    )
    wiggle: WiggleParams | None = Field(
        None,
        description="an animation of the boundary while the weights move, of points of the plane; none: no",
    )
    minefield: MinefieldParams | None = Field(
        None, description="bad minima from every state that is kept along the training; none: no"
    )
    basins: BasinParams | None = Field(
        None, description="the basin around the network, over its training images: radius, volume, and more; none: no"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """The parts know each other."""
        if self.poison.share and not isinstance(self.network, TrainedNetwork):
            raise FieldError("poison.share", "be 0 for a network that is not trained here", self.poison.share)
        if self.poison.share and not self.poison.images:
            raise FieldError("poison.images", "be at least 1 where poison.share is above 0", self.poison.images)
        if isinstance(self.network, TrainedNetwork):
            beside = self.poison.beside(self.network.training.batch)
            if beside > self.poison.images:
                raise FieldError(
                    "poison.images",
                    f"be at least {beside}, the poison images in a minibatch",
                    self.poison.images,
                    hint="the batch would hold less poison than poison.share says",
                )
        if self.minefield is not None:
            self._check_minefield(self.minefield)
        return self

    def _check_minefield(self, minefield: MinefieldParams) -> None:
        """There are states to begin at, and poison."""
        if not isinstance(self.network, TrainedNetwork):
            raise FieldError("network.kind", "be train for a minefield", self.network.kind)
        if self.poison.share or not self.poison.images:
            raise FieldError(
                "poison", "have a share of 0 and images for a minefield, whose own share is another", self.poison.share
            )
        if self.network.training.keep_every is None:
            raise FieldError("network.training.keep_every", "be given for a minefield", None)
        minefield.check(1 + math.ceil(self.network.training.epochs / self.network.training.keep_every))

    @property
    def name_parts(self) -> tuple[str, ...]:
        if isinstance(self.network, SearchedNetwork):
            return self.data.name, self.network.classifier.name, self.network.method.kind
        if not isinstance(self.network, TrainedNetwork):
            return ()
        kind = f"poison-{self.poison.share:g}".replace(".", "-") if self.poison.share else "clean"
        return self.data.name, self.network.classifier.name, kind
