"""Detections on images of which a part is covered: what a patch hides is found where the patch is covered.

Source: Xiang, Valtchanov, Mahloujifar, Mittal 2023, "ObjectSeeker: certifiably robust object detection against patch
hiding attacks via patch-agnostic masking" (IEEE S&P): lines across the image, each of whose two sides is covered in
turn, so that some line parts the patch from much of the object; boxes of covered images that those of the whole image
explain are pruned, the others are clustered. Their certificate is not computed here.
"""

import torch
from torch import Tensor

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import Boxes, covered, overlaps

FILL = 0.5
NAME = "occlusion_vote"


class OcclusionVote(Detector):
    """A detector that is asked about an image 1 + 4 x lines times: it takes as many times as long.

    An attack on it is adaptive: it sees the priors of all these images.
    """

    def __init__(self, inner: Detector, lines: int, confidence: float, explained: float, alike: float) -> None:
        """lines: vertical and as many horizontal ones, evenly spaced. confidence: of boxes in covered images.

        explained: share of such a box that one of the same class covers, in the image as it is, for it to be pruned.
        alike: intersection over union from which two of the others belong together.
        """
        super().__init__()
        self.inner, self.lines = inner, lines
        self.confidence, self.explained, self.alike = confidence, explained, alike
        self.name = f"{inner.name}_{NAME}"
        self.classes, self.substitute = inner.classes, inner.substitute

    def priors(self, images: Tensor) -> Priors:
        """Of all versions of each image, one after another."""
        every = [self.inner.priors(version) for version in self.versions(images)]
        objectness = [each.objectness for each in every if each.objectness is not None]
        classes = [each.classes for each in every if each.classes is not None]
        return Priors(
            torch.cat([each.corners for each in every], 1),
            torch.cat(objectness, 1) if objectness else None,
            torch.cat(classes, 1) if classes else None,
        )

    @torch.no_grad()
    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        whole, *parts = self.versions(images)
        found = self.inner.detect(whole, confidence, overlap, most)
        limit = max(self.confidence, confidence)
        seen = [self.inner.detect(part, limit, overlap, most) for part in parts]
        return [self._joined(boxes, [each[place] for each in seen], most) for place, boxes in enumerate(found)]

    def versions(self, images: Tensor) -> list[Tensor]:
        """The images as they are, then with each side of each line covered by grey: (batch, 3, height, width) each."""
        height, width = images.shape[-2:]
        every = [images]
        for number in range(1, self.lines + 1):
            row, column = (round(number * length / (self.lines + 1)) for length in (height, width))
            down, across = torch.arange(height)[:, None], torch.arange(width)[None]
            for hidden in (down < row, down >= row, across < column, across >= column):
                every.append(torch.where(hidden.to(images.device), FILL, images))
        return every

    def _joined(self, whole: Boxes, parts: list[Boxes], most: int) -> Boxes:
        """The boxes of an image, and what covered images add to them."""
        labels = torch.cat([boxes.labels for boxes in parts])
        added: list[Boxes] = []
        for label in sorted(set(labels.tolist())):
            own = whole.of(label)
            others = _together([boxes.of(label) for boxes in parts])
            if len(own):
                others = others.at(covered(others.corners, own.corners).max(1).values < self.explained)
            added.append(self._clustered(others))
        every = _together([whole, *added])
        assert every.scores is not None
        return every.at(every.scores.argsort(descending=True, stable=True)[:most])

    def _clustered(self, boxes: Boxes) -> Boxes:
        """The box around each group of boxes of one class that overlap, with the score of its surest."""
        if not len(boxes):
            return boxes
        assert boxes.scores is not None
        groups = components(overlaps(boxes.corners, boxes.corners) >= self.alike)
        corners, scores = [], []
        for group in sorted(set(groups.tolist())):
            own = boxes.corners[groups == group]
            corners.append(torch.cat([own[:, :2].amin(0), own[:, 2:].amax(0)]))
            scores.append(boxes.scores[groups == group].max())
        return Boxes(torch.stack(corners), boxes.labels[: len(corners)], torch.stack(scores))


def components(linked: Tensor) -> Tensor:
    """Which things hang together over any number of links: int64 (n,), alike for those that do.

    linked: bool (n, n), symmetric. With one neighbour enough for a group, DBSCAN is the same (Ester et al. 1996).
    """
    groups = torch.arange(len(linked), device=linked.device)
    reach = linked | torch.eye(len(linked), dtype=torch.bool, device=linked.device)
    while True:
        lowest = torch.where(reach, groups[None], len(linked)).amin(1)
        if torch.equal(lowest, groups):
            return groups
        groups = lowest


def _together(several: list[Boxes]) -> Boxes:
    scores = [boxes.scores for boxes in several if boxes.scores is not None]
    return Boxes(
        torch.cat([boxes.corners for boxes in several]),
        torch.cat([boxes.labels for boxes in several]),
        torch.cat(scores),
    )
