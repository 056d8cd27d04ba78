"""A patch that is optimised on the images of a request, against the one detector that is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import Boxes
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.search import Problem, State, random_patch, searched
from serving.kinds.detection.attack_options import PatchOptions, search_of
from serving.kinds.detection.stored_patches import DrawnPatch


class GuardedDetector(Detector):
    """A detector that asks before each pass whether it is still wanted."""

    def __init__(self, detector: Detector, check: Callable[[], None]) -> None:
        super().__init__()
        self.detector, self._check = detector, check
        self.name, self.classes, self.substitute = detector.name, detector.classes, detector.substitute

    def priors(self, images: Tensor) -> Priors:
        self._check()
        return self.detector.priors(images)


@dataclass
class SentImages:
    """The images of a request as a set with boxes: those that the detector finds."""

    pixels: Tensor
    """(images, 3, height, width)"""
    found: Sequence[Boxes]
    classes: tuple[str, ...]
    name: str = "the images that were sent"
    digest: str = ""
    boxed_by: str | None = "the detector"
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.side = max(self.pixels.shape[2:])

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, places: Tensor) -> Tensor:
        return self.pixels[places]

    def boxes(self, place: int) -> Boxes:
        return self.found[place]


def optimised(
    detector: Detector,
    images: SentImages,
    places: Tensor,
    hidden: str,
    options: PatchOptions,
    rendering: RenderingParams,
    check: Callable[[], None],
    device: torch.device,
) -> DrawnPatch:
    """The patch that all images share.

    places: int64 (k,), the images that have objects to draw it on. hidden: the name of their class. check: called
    before each pass.
    """
    guarded = {detector.name: GuardedDetector(detector, check)}
    problem = Problem(guarded, images, places, hidden, rendering)
    params = search_of(options, len(places))
    start = State.begin(random_patch(params.size, options.seed), len(guarded))
    state, _ = searched(start, problem, params, options.seed, params.iterations, device)
    return DrawnPatch(state.patch, rendering)
