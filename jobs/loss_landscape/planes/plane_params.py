"""Which line or plane through weight space is drawn: the section `plane` of a spec."""

from typing import Annotated, Literal

from pydantic import Field

from jobs.common.models.directions import Ignore, Normalisation
from jobs.common.models.network_params import NetworkParams
from jobs.common.models.weights import Space
from jobs.common.params import StudyParams

CENTRE = ""
"""the role of the network at the centre of the landscape"""


class RandomPlane(StudyParams):
    """Gaussian directions (Li et al. 2018, section 4)."""

    kind: Literal["random"] = Field("random", description="Gaussian directions")
    normalisation: Normalisation = Field(
        "filter",
        description="filter or layer: as long as each filter or layer of the weights; weight: times each weight; "
        "dfilter, dlayer: of length 1; none: as drawn",
    )
    ignore: Ignore = Field("biasbn", description="biasbn: biases and batch norm stay; none: they are scaled by 1 + x")
    space: Space = Field("weights", description="states: running statistics of batch norm move as well")
    draw: int = Field(0, ge=0, description="another number draws other directions")


class ModelPlane(StudyParams):
    """Through the network and one or two others, which are at 1 on the axes."""

    kind: Literal["models"] = Field("models", description="from the network to other ones")
    x: NetworkParams = Field(description="the network at (1, 0)")
    y: NetworkParams | None = Field(None, description="the network at (0, 1); none: a line")
    space: Space = Field("states", description="weights: running statistics of batch norm stay those at the centre")


class TrajectoryPlane(StudyParams):
    """In which the path of training moves most: the first principal axes (Li et al. 2018, section 7)."""

    kind: Literal["trajectory"] = Field("trajectory", description="principal axes of the path of training")
    centred: bool = Field(True, description="take the mean away before, as the released code does")
    ignore: Ignore = Field("none", description="biasbn: biases and batch norm stay")
    space: Space = Field("weights", description="states: running statistics of batch norm move as well")
    margin: float = Field(0.15, ge=0, le=10, description="around the path, a share of its extent; it sets the bounds")


class EigenvectorPlane(StudyParams):
    """In which the loss bends most at the centre: eigenvectors of its Hessian with the largest eigenvalues."""

    kind: Literal["eigenvectors"] = Field("eigenvectors", description="top eigenvectors of the Hessian")
    images: int = Field(1000, ge=1, description="images that the Hessian is computed on, at most")
    normalisation: Normalisation = Field("none", description="none: of length 1; else as for random directions")


class FilePlane(StudyParams):
    """The directions of an earlier run, or of the released code."""

    kind: Literal["file"] = Field("file", description="directions that a run around the same model has saved")
    path: str = Field(
        min_length=1,
        description="path of a directions.safetensors of that run, or of a direction file (h5) of the released code, "
        "which does not say around which model it was made",
    )


PlaneParams = Annotated[
    RandomPlane | ModelPlane | TrajectoryPlane | EigenvectorPlane | FilePlane, Field(discriminator="kind")
]
