"""Which bounds are computed, as a section of a spec."""

from pydantic import Field

from jobs.common.data.sets import Split
from jobs.common.params import StudyParams
from jobs.inevitability.bounds.base import Form
from jobs.inevitability.ceilings.density_params import DensityParams, Gaussian, NearestNeighbours, Quantised


class BoundParams(StudyParams):
    """Ceilings by the theorems of Shafahi et al. 2019 on the cube, at resolution 1."""

    densities: tuple[DensityParams, ...] = Field(
        (NearestNeighbours(), Gaussian(step=1 / 255), Quantised()),
        min_length=1,
        max_length=10,
        description="ways to the peak of the density of each class, side by side",
    )
    split: Split = Field("train", description="the images that densities are estimated from")
    samples: int = Field(
        10_000,
        ge=0,
        le=10_000_000,
        description="uniform points of the cube that are counted to know how much of it each network gives to each "
        "class; 0: at most a half is taken for granted",
    )
    form: Form = Field("sharp", description="sharp: the best form known; paper: as printed")
