"""Attacks on detectors: a patch is drawn on every object of a class, so that the detector does not see it any more.

The objects are those that the detector finds without a patch. Inputs: "images", or an uploaded image; for the attack
`stored_patch` optionally "patch" FP32 (3, height, width) in [0, 1]. Parameters, besides those of inference but `view`:

    attack  "patch" (default): one that is optimised on these images; "stored_patch": one that is there
    class   the class to hide, by name; default "person", or the first class of the detector
    scale   width of the patch, in diagonals of the box; default 0.22, or what the card of a stored patch says

and those of PatchOptions or StoredOptions of `serving.kinds.detection.attack_options`.

Outputs, beside the adversarials, whose pixels are those of a PNG: the patch FP32 (1, 3, height, width); what inference
answers before, and after, as adversarial_boxes, ...; targets, the objects that a patch was drawn on; hidden, how many
of them no box of the class is on any more, with an intersection over union of 0.5; whether these are all (successful);
the share of pixels that changed (area), and the norms of the change (linf, l2), both from the image rounded to 8 bits.
With `Accept: image/png` the answer is the one changed image, and the numbers are headers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from jobs.common.detection.boxes import Boxes
from jobs.common.detection.rates import fates
from jobs.invisibility_cloak.patch.rendering import check_patch, render
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.targets import Targets, targets_of
from service.errors import FieldError, InputError
from service.models import TensorSpec
from serving.http.messages import Form
from serving.http.protocol import InferRequest, Scalar, fitted
from serving.http.settings import Attacks
from serving.http.tensors import Array
from serving.kinds.budget import Words, check_budget, too_late
from serving.kinds.detection.answers import as_tensors
from serving.kinds.detection.attack_options import LONGEST_PATCH, AttackOptions, PatchOptions, rendering_of
from serving.kinds.detection.patch_search import SentImages, optimised
from serving.kinds.detection.stored_patches import DrawnPatch, find_patch
from serving.kinds.image_attack import in_8_bits, picture
from serving.kinds.images import IMAGES, check_pixels
from serving.kinds.work import AttackCost, Attacked, AttackWork, Rendering, Stopped, check_of

if TYPE_CHECKING:
    from serving.kinds.object_detection import ObjectDetection

SENT = "patch"
PATCH_SPEC = TensorSpec(name=SENT, datatype="FP32", shape=(3, -1, -1))
MOST_COMPARED = 20_000_000  # numbers of the windows in which the median filter of a patch looks
FEWER = "send fewer or smaller images, or ask for fewer iterations"
WORDS = Words("the attack", IMAGES, "image", "detector", "ask for fewer iterations", FEWER)
TOLD = ("boxes", "labels", "scores", "count")


@dataclass(frozen=True, eq=False)
class ObjectDetectionAttack(AttackWork):
    """An attack on images (rows, 3, height, width). patch: the one that is there; None: it is to be optimised."""

    outputs: ClassVar[tuple[str, ...]] = (
        "adversarials",
        "patch",
        *TOLD,
        *(f"adversarial_{name}" for name in TOLD),
        "targets",
        "hidden",
        "successful",
        "area",
        "linf",
        "l2",
        "queries",
        "gradients",
    )

    model: "ObjectDetection"
    limits: Attacks
    options: AttackOptions
    images: Tensor
    patch: DrawnPatch | None = None
    rendering: Rendering | None = None

    @property
    def rows(self) -> int:
        return len(self.images)

    @property
    def parts(self) -> int:
        """In which each image is seen."""
        height, width = self.images.shape[2:]
        return self.options.detection.parts(height, width)

    @property
    def iterations(self) -> int:
        return self.options.own.iterations if isinstance(self.options.own, PatchOptions) else 0

    @property
    def cost(self) -> AttackCost:
        passes = 2 * self.parts + 2 * self.iterations
        return AttackCost(passes, self.model.gmacs_of_part(self.images.shape, self.options.detection))

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        return self.options.parameters

    def check(self) -> None:
        """InputError if the attack takes more than is allowed.

        A patch is not optimised on images that are cut: the graphs of all their parts would be held at once.
        """
        if self.iterations and self.parts > 1:
            height, width = self.images.shape[2:]
            side = self.options.detection.tile
            raise InputError(
                f"images must have at most {side} pixels a side, those of a tile, for a patch to be optimised on them; "
                f"they are {width}x{height}",
                "send smaller images, or ask for a larger tile",
            )
        check_budget(self.limits, self.rows, self.cost, WORDS)

    def compute(self, stopped: Stopped) -> Attacked:
        check = check_of(stopped, self.limits.seconds, too_late(self.limits, WORDS))
        detection = self.options.detection
        before = self.model.see(self.images, detection, check)
        patch = self.patch or self._optimised(before, check)
        targets = self._targets(before, patch.rendering)
        with torch.no_grad():
            adversarials = in_8_bits(render(patch.pixels, self.images, targets, patch.rendering))
        after = self.model.see(adversarials, detection, check)
        changes = adversarials - in_8_bits(self.images)  # by the patches alone, not by rounding
        drawn, hidden = self._hidden(targets, after)
        outputs: dict[str, Array] = {
            "adversarials": adversarials.numpy(),
            "patch": patch.pixels[None].numpy(),
            **as_tensors(before, detection.most),
            **{f"adversarial_{name}": values for name, values in as_tensors(after, detection.most).items()},
            "targets": drawn,
            "hidden": hidden,
            "successful": (hidden == drawn) & (drawn > 0),
            "area": (changes != 0).any(1).float().mean((1, 2)).numpy(),
            "linf": changes.abs().amax((1, 2, 3)).numpy(),
            "l2": changes.flatten(1).norm(dim=1).numpy(),
            "queries": np.full(self.rows, 2 * self.parts + self.iterations, np.int64),
            "gradients": np.full(self.rows, self.iterations, np.int64),
        }
        return Attacked({name: outputs[name] for name in self.outputs}, self._warnings(targets))

    def _optimised(self, before: Sequence[Boxes], check: Callable[[], None]) -> DrawnPatch:
        """The patch that is optimised on the images. before: what is seen in them without it."""
        own, model = self.options.own, self.model
        assert isinstance(own, PatchOptions)
        rendering = self.options.rendering(rendering_of(own))
        images = SentImages(self.images, before, tuple(model.classes))
        places = torch.unique(self._targets(before, rendering).images)
        hidden = model.classes[self.options.label]
        return optimised(model.detector, images, places, hidden, own, rendering, check, model.device)

    def _targets(self, before: Sequence[Boxes], rendering: RenderingParams) -> Targets:
        """The objects that the patch is drawn on. InputError if there are none in any image."""
        size = (self.images.shape[2], self.images.shape[3])
        targets = targets_of(before, self.options.label, size, rendering.smallest, rendering.most)
        if not len(targets):
            name, confidence = self.model.classes[self.options.label], self.options.detection.confidence
            raise InputError(
                f"the detector must find a {name} to draw the patch on; with confidence {confidence:g} it finds none",
                "ask for a lower confidence, or for another class",
            )
        if (pixels := self._covered(targets, rendering)) > (most := self.limits.patch_pixels):
            raise InputError(
                f"the patches on {len(targets)} objects must have at most {most:,} pixels (attacks.patch_pixels); they "
                f"have {pixels:,}",
                "ask for a smaller scale, or for a higher confidence",
            )
        return targets

    def _covered(self, targets: Targets, rendering: RenderingParams) -> int:
        """Pixels of the images under all patches, as often as each is sampled: what drawing takes memory for."""
        height, width = self.images.shape[2:]
        sides = targets.corners[:, 2:] - targets.corners[:, :2]
        wide = rendering.scale * torch.hypot(sides[:, 0], sides[:, 1])
        down, across = self._shape
        tall = wide * down / across
        return int((wide.clamp(max=width) * tall.clamp(max=height)).double().sum() * rendering.samples**2)

    @property
    def _shape(self) -> tuple[int, int]:
        """Height and width of the patch."""
        own = self.options.own
        if isinstance(own, PatchOptions):
            return own.height, own.width
        assert self.patch is not None
        return self.patch.pixels.shape[1], self.patch.pixels.shape[2]

    def _hidden(self, targets: Targets, after: Sequence[Boxes]) -> tuple[Array, Array]:
        """The objects with a patch, and how many of them are not found any more: int64 (rows,) each."""
        label = self.options.label
        own = [targets.corners[targets.images == row] for row in range(self.rows)]
        truth = [Boxes(corners, torch.full((len(corners),), label)) for corners in own]
        found = fates(after, truth, label, self.options.detection.confidence).found
        drawn = np.array([len(each) for each in found], np.int64)
        return drawn, drawn - np.array([int(each.sum()) for each in found], np.int64)

    def _warnings(self, targets: Targets) -> tuple[str, ...]:
        warnings = []
        if skipped := sum(targets.skipped):
            warnings.append(f"{skipped} objects have no patch: they are too small, or too many")
        own, substitute = self.options.own, self.model.detector.substitute
        if isinstance(own, PatchOptions) and own.objective == "hinge" and substitute is not None:
            warnings.append(f"the detector has no objectness; what is attacked in its place is {substitute}")
        return tuple(warnings)


def prepare(model: "ObjectDetection", request: InferRequest, form: Form, limits: Attacks) -> ObjectDetectionAttack:
    """Check everything that can be known before the model is called. InputError, one sentence."""
    inputs = fitted(request.inputs, model.inputs, optional=[PATCH_SPEC])
    images = inputs[IMAGES]
    check_pixels(images)
    if (pixels := images[:, 0].size) > limits.patch_pixels:
        raise InputError(
            f"input {IMAGES!r} must have at most {limits.patch_pixels:,} pixels (attacks.patch_pixels); it has "
            f"{pixels:,}",
            "send fewer or smaller images",
        )
    options = AttackOptions.parse(request.parameters, model.classes, model.usual)
    work = ObjectDetectionAttack(
        model,
        limits,
        options,
        torch.tensor(images),  # a copy: the images of a request may be a view of its body
        _patch(model, options, inputs.get(SENT)),
        picture(form, images),
    )
    work.check()
    return work


def _patch(model: "ObjectDetection", options: AttackOptions, sent: Array | None) -> DrawnPatch | None:
    """The patch that is there; None: one is to be optimised. InputError if both are, or neither is."""
    own = options.own
    if isinstance(own, PatchOptions):
        if sent is not None:
            raise InputError(f"input {SENT!r} is for the attack 'stored_patch'")
        return None
    if (sent is None) != bool(own.patch):
        raise InputError("the attack 'stored_patch' takes the parameter 'patch' or the tensor 'patch', one of the two")
    if sent is None:
        found = find_patch(model.store, own.patch)
    else:
        if max(sent.shape[1:]) > LONGEST_PATCH:
            raise FieldError(f"the sides of input {SENT!r}", f"be at most {LONGEST_PATCH:,}", list(sent.shape[1:]))
        found = DrawnPatch(torch.tensor(sent), RenderingParams())
        check_patch(found.pixels, f"input {SENT!r}")
    _check_filter(found)
    return DrawnPatch(found.pixels, options.rendering(found.rendering))


def _check_filter(patch: DrawnPatch) -> None:
    """InputError if the median filter of a patch does not fit it, or takes too much memory."""
    sides, median = list(patch.pixels.shape[1:]), patch.rendering.median
    if min(sides) <= median // 2:
        raise InputError(
            f"a patch must have more than {median // 2} pixels a side, for its median filter; it has {sides}"
        )
    if (compared := patch.pixels.numel() * median**2) > MOST_COMPARED:
        raise InputError(
            f"the median filter of a patch must compare at most {MOST_COMPARED:,} numbers; those of {sides} pixels, "
            f"{median} a side, are {compared:,}"
        )
