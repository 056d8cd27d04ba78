"""What a spec of the study says."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobs.common.curvature.spectra_params import SpectraParams
from jobs.common.data.images import DataParams
from jobs.common.data.sets import Split
from jobs.common.imports import resolve
from jobs.common.mean_loss.losses import LOSSES
from jobs.common.models.cards import PublishingParams
from jobs.common.models.network_params import NetworkParams, TrainedNetwork
from jobs.common.params import ONCE
from jobs.common.training.supervised import SupervisedParams
from jobs.loss_landscape.files.paraview import VtpParams
from jobs.loss_landscape.planes.plane_params import CENTRE, ModelPlane, PlaneParams, RandomPlane, TrajectoryPlane
from jobs.loss_landscape.surface.curvature_map import CurvatureParams
from jobs.loss_landscape.surface.evaluator import EvaluatorParams
from jobs.loss_landscape.surface.grid import GridParams
from jobs.loss_landscape.surface.refinement import RefinementParams
from service.errors import FieldError, InputError


class Params(PublishingParams):
    """A network, a line or a plane through its weights, and the images that the loss is the mean over."""

    network: NetworkParams = Field(TrainedNetwork(), description="the network at the centre")
    data: DataParams = Field(DataParams(), description="the images")
    split: Split = Field("train", description="which of them the loss is computed on")
    images: int | None = Field(
        None, ge=2, description="images of the split to draw, the same for all points; none: all of them"
    )
    plane: PlaneParams = Field(RandomPlane(), description="the directions")
    grid: GridParams = Field(GridParams(), description="the points, in units of the directions")
    refinement: RefinementParams | None = Field(
        None, description="measure a coarse grid first and more only where it matters; none: every point"
    )
    evaluation: EvaluatorParams = Field(EvaluatorParams(), description="how a point is computed")
    curvature: CurvatureParams | None = Field(None, description="also a map of the Hessian's eigenvalues; none: no")
    spectra: SpectraParams | None = Field(
        None, description="also eigenvalues, trace, spectral density and sharpness at the centre; none: no"
    )
    recorded_loss: float | None = Field(
        None, description="mean loss that the network is known to have on the split; a run warns if it has another"
    )
    export: Annotated[tuple[Literal["h5", "vtp"], ...], ONCE] = Field(
        (),
        description="also as files: h5 of the released code of Li et al. 2018 (surface, directions, curvature), vtp "
        "for ParaView",
    )
    vtp: VtpParams = Field(VtpParams(), description="of the export vtp")
    surface_file: str | None = Field(
        None,
        min_length=1,
        description="path of a surface in the h5 of the released code: it is drawn and exported, and nothing is "
        "computed; none: the surface is computed",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """What is named exists, and the parts know each other."""
        try:
            resolve(self.evaluation.loss, LOSSES, "loss")
        except InputError as error:
            raise ValueError(str(error)) from error
        plane, grid = self.plane, self.grid
        if isinstance(plane, ModelPlane) and (plane.y is None) != (grid.y is None):
            raise ValueError("plane.y and grid.y: a plane through three networks needs both, a line neither")
        if isinstance(plane, TrajectoryPlane):
            if not isinstance(self.network, TrainedNetwork):
                raise FieldError("network.kind", "be train for a plane of kind trajectory", self.network.kind)
            self._check_path(self.network.training)
            for name, axis in (("x", grid.x), ("y", grid.y)):
                if axis is not None and (bounds := [axis.low, axis.high]) != [-1.0, 1.0]:
                    requirement = "be left out for a plane of kind trajectory, whose margin sets the bounds"
                    raise FieldError(f"low and high of grid.{name}", requirement, bounds)
        if self.surface_file is not None:
            return self
        if "vtp" in self.export and grid.y is None:
            raise FieldError("export", "be without vtp, which is for surfaces, where there is no grid.y", self.export)
        if "vtp" in self.export and self.vtp.steps is not None and min(grid.shape) < 4:
            raise FieldError("vtp.steps", "be empty for a grid of fewer than 4x4 points", self.vtp.steps)
        return self

    def _check_path(self, training: SupervisedParams) -> None:
        """Enough states are kept along training for the axes."""
        if training.keep_every is None:
            raise FieldError("network.training.keep_every", "be given for a plane of kind trajectory", None)
        if self.grid.axes > math.ceil(training.epochs / training.keep_every):
            requirement = f"be below {training.epochs}, the number of epochs, so that the path spans a plane"
            raise FieldError("network.training.keep_every", requirement, training.keep_every)

    @property
    def networks(self) -> dict[str, NetworkParams]:
        """Every network of the landscape, by its role: CENTRE, and the axes that others lie on."""
        networks = {CENTRE: self.network}
        if isinstance(self.plane, ModelPlane):
            networks["x"] = self.plane.x
            if self.plane.y is not None:
                networks["y"] = self.plane.y
        return networks

    @property
    def name_parts(self) -> tuple[str, ...]:
        if not isinstance(self.network, TrainedNetwork) or self.surface_file is not None:
            return ()
        return self.data.name, self.network.classifier.name, "landscape"
