"""The section `poison` of a spec: what training is to get wrong."""

import math

from pydantic import Field

from jobs.common.data.images import DataParams
from jobs.common.params import StudyParams


class PoisonParams(StudyParams):
    """Images besides the training images, which a network learns not to classify correctly."""

    share: float = Field(
        0.0, ge=0, lt=1, description="of the objective that is the reverse cross entropy of poison images; 0: plain"
    )
    images: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="images to train with that are set aside as poison, also where the share is 0, so that all shares "
        "learn from the same images",
    )
    data: DataParams | None = Field(
        None, description="another set of the same classes, whose training images are the poison; none: of the same set"
    )
    batch: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="poison images in a minibatch; none: as many as give each image of a minibatch the same weight",
    )

    def beside(self, batch: int) -> int:
        """Poison images beside so many training images in a minibatch: at least one, where there is any poison."""
        if not self.share:
            return 0
        return self.batch or max(1, round(batch * self.share / (1 - self.share)))

    def epoch(self, images: int, batch: int) -> int:
        """Poison images that an epoch over so many training images takes."""
        return math.floor(images / batch) * self.beside(batch)
