"""A detector that sees its images only after something has tried to take patches out of them."""

from torch import Tensor, nn

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import Boxes


class Purified(Detector):
    """A detector behind a module that maps images to images of the same size.

    An attack on it is adaptive: the gradient goes through the module as well.
    """

    def __init__(self, inner: Detector, purify: nn.Module, defence: str) -> None:
        """defence: a short name, which follows that of the detector."""
        super().__init__()
        self.inner, self.purify = inner, purify
        self.name = f"{inner.name}_{defence}"
        self.classes, self.substitute = inner.classes, inner.substitute

    def priors(self, images: Tensor) -> Priors:
        return self.inner.priors(self.purify(images))

    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        return self.inner.detect(self.purify(images), confidence, overlap, most)
