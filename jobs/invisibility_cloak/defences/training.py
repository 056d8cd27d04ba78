"""Training of a segmenter of patches: images with patches on them, and which pixels these cover.

It learns from random textures and, where they are given, from patches that were optimised against the same detector
with other seeds: so it knows the kind of patch that it will meet, and not the patch. They lie on persons and anywhere
else, larger and smaller than those of the attack, and a quarter of the images has none.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from jobs.common.data.batches import Epochs
from jobs.common.data.boxes.base import BoxSet
from jobs.common.detection.boxes import Boxes
from jobs.common.training import loop
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine, EngineParams
from jobs.invisibility_cloak.defences.params import MaskingParams
from jobs.invisibility_cloak.defences.patch_mask import PatchSegmenter
from jobs.invisibility_cloak.defences.textures import texture
from jobs.invisibility_cloak.patch.rendering import render
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.targets import Targets, targets_of
from service.run import Run

GROUPS = 4  # of the images of a batch, each with a patch of its own; the first has none
SIZES = (0.7, 1.5)  # of patches, as multiples of those of the attack
TEXTURE = (64, 40)  # height and width of random patches, in pixels
LARGEST_MARGIN = 0.25  # of an image by which a box that is made up may reach beyond its edges
CHECKED = 4  # batches of each validation


def trained(
    run: Run,
    data: BoxSet,
    places: Tensor,
    hidden: str,
    rendering: RenderingParams,
    patches: Sequence[Tensor],
    params: MaskingParams,
    name: str,
) -> PatchSegmenter:
    """A segmenter trained from its first weights on, on the CPU; for `run.reserved`.

    places: int64 (images,), images of the data to learn from. hidden: the class whose boxes carry patches. rendering:
    how these are drawn. patches: (3, height, width) each, to learn from besides random ones. name: of its phase and of
    its metrics: NAME_train_loss, and shares of the pixels of patches it has not seen that it finds (NAME_found), and of
    other pixels that it masks (NAME_false). InputError if the images do not fill one batch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed_for(name, "weights"))
        segmenter = PatchSegmenter().to(run.device)
    step = MaskStep(Engine(segmenter, EngineParams()), params.threshold, name)

    def seed_for(index: int) -> int:
        return run.seed_for(name, "batch", index)

    batches = PatchedImages(data, places, hidden, rendering, patches, params.batch, seed_for)
    step.checked = [batches.batch(params.updates + number) for number in range(CHECKED)]
    plan = loop.Plan(
        updates=params.updates,
        rates=params.optimizer,
        report_every=max(1, params.updates // 4),
        seed=lambda update: None,
        phase=name.replace("_", "-"),
        prefix=f"{name}_",
        first_step=run.step,
    )
    optimizer = params.optimizer.build([(1.0, list(segmenter.parameters()))])
    loop.train(step, optimizer, batches, plan, run)
    return segmenter.cpu()


class PatchedImages:
    """Images with patches on some of them: float (batch, 3, h, w) in [0, 1], and float (batch, 1, h, w), 1 on patches.

    Batch i depends on i alone.
    """

    def __init__(
        self,
        data: BoxSet,
        places: Tensor,
        hidden: str,
        rendering: RenderingParams,
        patches: Sequence[Tensor],
        batch: int,
        seed_for: Callable[[int], int],
    ) -> None:
        self._data, self._places, self._rendering, self._patches = data, places, rendering, patches
        self._label = data.classes.index(hidden)
        self._seed_for = seed_for
        self._epochs = Epochs(len(places), min(batch, len(places)), lambda epoch: seed_for(-1 - epoch))

    def batch(self, index: int) -> Batch:
        stream = torch.Generator().manual_seed(self._seed_for(index))
        chosen = self._places[self._epochs.indices(index)]
        images = self._data.images(chosen)
        parts = [
            self._patched(images[rows], [self._data.boxes(place) for place in chosen[rows].tolist()], group, stream)
            for group, rows in enumerate(torch.arange(len(chosen)).chunk(GROUPS))
        ]
        patched, masks = (torch.cat(each) for each in zip(*parts, strict=True))
        return patched, masks

    def _patched(
        self, images: Tensor, boxes: Sequence[Boxes], group: int, stream: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Images with one patch on each box, and where it is."""
        kind, which, anywhere, size = torch.rand(4, generator=stream).tolist()
        seed = int(torch.randint(2**62, (), generator=stream))
        if kind < 0.5 and self._patches:
            patch = self._patches[int(which * len(self._patches))]
        else:
            patch = texture(TEXTURE, torch.Generator().manual_seed(seed))
        none = torch.zeros_like(images[:, :1])
        if not group:
            return images, none
        if anywhere < 0.5:
            boxes = [made_up(len(each), images.shape[2], images.shape[3], self._label, stream) for each in boxes]
        low, high = SIZES
        rendering = self._rendering.model_copy(
            update={"scale": min(2.0, self._rendering.scale * (low + (high - low) * size))}
        )
        targets = targets_of(
            boxes, self._label, (images.shape[2], images.shape[3]), rendering.smallest, rendering.most_in_search, stream
        )
        with torch.no_grad():
            patched = render(patch, images, targets, rendering, torch.Generator().manual_seed(seed))
            return patched, (covered_by(patch, images, targets, rendering, seed) > 0.5).to(images)


def covered_by(patch: Tensor, images: Tensor, targets: Targets, rendering: RenderingParams, seed: int) -> Tensor:
    """How much of each pixel patches cover when they are drawn with this seed: (batch, 1, height, width) in [0, 1].

    What is random does not depend on the parameters, so that a white patch of even light lies as the patch does.
    """
    even = rendering.model_copy(update={"contrast": (1.0, 1.0), "brightness": 0.0, "noise": 0.0})
    white, black = torch.ones_like(patch), torch.zeros_like(images)
    return render(white, black, targets, even, torch.Generator().manual_seed(seed))[:, :1]


def made_up(count: int, height: int, width: int, label: int, generator: torch.Generator) -> Boxes:
    """Boxes of a class where nothing is: at least one, upright, partly inside."""
    draws = torch.rand(max(1, count), 4, generator=generator)
    high = (0.2 + 0.6 * draws[:, 0]) * height
    wide = (0.3 + 0.5 * draws[:, 1]) * high
    left = (width + 2 * LARGEST_MARGIN * wide - wide) * draws[:, 2] - LARGEST_MARGIN * wide
    top = (height + 2 * LARGEST_MARGIN * high - high) * draws[:, 3] - LARGEST_MARGIN * high
    corners = torch.stack([left, top, left + wide, top + high], 1)
    return Boxes(corners, torch.full((len(corners),), label))


class MaskStep(loop.Step):
    """An update by the mean cross entropy of pixels."""

    checked: Sequence[Batch] = ()
    """batches for validation"""

    def __init__(self, engine: Engine, threshold: float, name: str) -> None:
        super().__init__(engine)
        self._threshold, self._name = threshold, name

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        images, masks = batch
        loss = functional.binary_cross_entropy_with_logits(self.engine(images), masks)
        self.engine.scaled(loss).backward()  # type: ignore[no-untyped-call]
        return {"loss": Term(loss.detach(), 1.0)}

    def validate(self, progress: loop.Progress) -> dict[str, float]:
        counts = torch.zeros(4)
        with torch.no_grad():
            for batch in self.checked:
                images, masks = self.engine.send(batch)
                masked, true = torch.sigmoid(self.engine(images)) > self._threshold, masks > 0.5
                counts += torch.stack([(masked & true).sum(), true.sum(), (masked & ~true).sum(), (~true).sum()]).cpu()
        found, false = counts[0] / counts[1].clamp_min(1), counts[2] / counts[3].clamp_min(1)
        return {f"{self._name}_found": float(found), f"{self._name}_false": float(false)}
