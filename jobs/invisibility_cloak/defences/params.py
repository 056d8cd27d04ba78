"""What a spec says of defences."""

from typing import Self

from pydantic import Field, model_validator

from jobs.common.params import StudyParams
from jobs.common.training.optimizers import OptimizerParams
from service.errors import FieldError


class MedianParams(StudyParams):
    """The median of each colour around each pixel."""

    window: int = Field(3, ge=3, le=31, description="side of the window, odd, in pixels")

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.window % 2 == 0:
            raise FieldError("window", "be odd", self.window)
        return self


class SmoothingParams(StudyParams):
    """Local gradient smoothing (Naseer et al. 2019): fine patterns are darkened."""

    window: int = Field(15, ge=2, le=200, description="side of the windows in which patterns are counted, in pixels")
    threshold: float = Field(
        0.1, ge=0, le=1, description="mean of a window, of the steepest pixel, from which it counts"
    )
    strength: float = Field(2.3, gt=0, le=100, description="how much a pixel is darkened, as a multiple of its slope")


class MaskingParams(StudyParams):
    """A segmenter of patches trained here, and grey over what it finds (SAC and PatchZero, both 2022 to 2023)."""

    threshold: float = Field(0.5, gt=0, lt=1, description="probability of a patch from which a pixel is masked")
    closing: int = Field(2, ge=0, le=20, description="half the width of gaps in the mask that are closed, in pixels")
    patches: int = Field(
        4,
        ge=0,
        le=1000,
        description="patches to learn from that are optimised against the detector, beside random ones",
    )
    iterations: int = Field(60, ge=1, le=1_000_000, description="of the optimisation of each of them")
    updates: int = Field(300, ge=1, le=10_000_000, description="of the segmenter's weights")
    batch: int = Field(16, ge=1, le=4096, description="images of an update")
    optimizer: OptimizerParams = Field(
        OptimizerParams(kind="adam", learning_rate=2e-3), description="how the segmenter's weights are moved"
    )


class OcclusionVoteParams(StudyParams):
    """Boxes of images of which a part is covered join those of the whole image (ObjectSeeker, 2023)."""

    lines: int = Field(
        4, ge=1, le=100, description="vertical and as many horizontal; a detector is asked 1 + 4 times as often"
    )
    confidence: float = Field(0.5, gt=0, lt=1, description="of boxes in covered images, the least")
    explained: float = Field(
        0.6, gt=0, le=1, description="share of such a box covered by one of the whole image for it to be dropped"
    )
    alike: float = Field(
        0.3, gt=0, le=1, description="intersection over union from which two of the others are of one object"
    )


class DefenceParams(StudyParams):
    """Defences of the victims: each victim with each of them is a further victim."""

    median: MedianParams | None = Field(MedianParams(), description="a median filter; none: not measured")
    smoothing: SmoothingParams | None = Field(None, description="local gradient smoothing; none: not measured")
    masking: MaskingParams | None = Field(MaskingParams(), description="masks over patches; none: not measured")
    occlusion_vote: OcclusionVoteParams | None = Field(
        OcclusionVoteParams(), description="boxes found in images that are partly covered; none: not measured"
    )
