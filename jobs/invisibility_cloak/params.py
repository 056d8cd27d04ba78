"""What a spec of the study says."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobs.common.data.boxes import DataParams
from jobs.common.detection.detector_params import DetectorParams, TrainedDetector
from jobs.common.models.cards import PublishingParams
from jobs.common.params import ONCE, Name, StudyParams
from jobs.invisibility_cloak.defences.params import DefenceParams
from jobs.invisibility_cloak.defences.victims import defended_names
from jobs.invisibility_cloak.patch.objectives import AnyObjective
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.search_params import AnyWeights, FixedWeights, SearchParams
from jobs.invisibility_cloak.physical.params import PhysicalParams
from jobs.invisibility_cloak.robustness.params import CurveParams
from service.errors import FieldError, nearest
from service.models import check_name

CLEAN = "clean"
Control = Literal["grey", "best_colour", "random", "upside_down", "look_alike"]
CONTROLS: tuple[Control, ...] = ("grey", "best_colour", "random", "upside_down", "look_alike")
RESERVED = (CLEAN, *CONTROLS)
STARTS = ("noise", "grey")


class PatchParams(StudyParams):
    """A patch, and the detectors that it is to hide people from."""

    detectors: Annotated[tuple[Name, ...], ONCE] = Field(
        (),
        description="that it is optimised against, together; none: all; DETECTOR_median and so on is one behind a "
        "defence of params.defences: the attack is then adaptive",
    )
    start: str = Field(
        "noise", description="what its search begins with: noise, grey, or another patch of the spec, by its name"
    )
    stored: str | None = Field(
        None, description="a patch of the model store that it begins with, NAME or NAME/VERSION; none: start says"
    )
    file: str | None = Field(
        None, description="path of an image that it begins with, in its own size; none: start says"
    )
    search: SearchParams | None = Field(None, description="how it is optimised; none: as params.search says")
    objective: AnyObjective | None = Field(None, description="what is minimised; none: as its search says")
    ensemble: AnyWeights | None = Field(None, description="how much its detectors count; none: as its search says")

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        given = [name for name in ("stored", "file") if getattr(self, name) is not None]
        if len(given) == 2 or (given and self.start != "noise"):
            raise FieldError("start", "be one of start, stored and file", given if len(given) == 2 else self.start)
        return self


class ControlParams(StudyParams):
    """Patches that nobody optimised, beside which every other stands."""

    names: Annotated[tuple[Control, ...], ONCE] = Field(
        CONTROLS, description="grey; best_colour, found by search; random; upside_down; look_alike"
    )
    like: Name | None = Field(
        None, description="the patch that is turned upside down and looked alike; none: the first of the spec"
    )
    levels: int = Field(3, ge=2, le=16, description="of each channel, of the colours that best_colour is chosen from")
    images: int = Field(
        16, ge=1, le=10_000, description="training images on which it is chosen, by the loss of all detectors"
    )


class EvaluationParams(StudyParams):
    """How patches are tested on every detector."""

    drawn_on: Literal["truth", "detections"] = Field(
        "truth", description="the boxes of the data, or those that the victim finds without a patch, at the confidence"
    )
    random_rendering: bool = Field(False, description="draw patches as at random as in the search; else upright")
    confidence: float = Field(0.5, gt=0, lt=1, description="of a box that counts, in all that is not AP")
    floor: float = Field(0.02, gt=0, lt=1, description="confidence below which a box does not count in AP either")
    batch: int = Field(
        16, ge=1, le=4096, description="images that are looked at together; what is drawn at random depends on it"
    )
    data: dict[Name, DataParams] = Field(
        {}, description="further sets to test on, by a name of yours; the first is `test`, that of params.data"
    )


class Params(PublishingParams):
    """Images with people, detectors of them, and patches that hide people from the detectors."""

    data: DataParams = Field(DataParams(), description="images with boxes: to train detectors and patches, and to test")
    hidden: str = Field("person", description="name of the class that patches are drawn on, and that is to be hidden")
    detectors: dict[Name, DetectorParams] = Field(
        {"one_anchor": TrainedDetector()},
        min_length=1,
        description="by a name of yours; each is a victim of every patch",
    )
    rendering: RenderingParams = Field(RenderingParams(), description="how patches are drawn")
    search: SearchParams = Field(SearchParams(), description="how patches are optimised")
    patches: dict[Name, PatchParams] = Field(
        {"all": PatchParams()}, min_length=1, description="what is made, by a name of yours"
    )
    controls: ControlParams = Field(ControlParams(), description="patches that nobody optimised")
    evaluation: EvaluationParams = Field(EvaluationParams(), description="how all of them are tested")
    defences: DefenceParams | None = Field(
        None, description="each detector with each of them is a further victim; none: no defences"
    )
    curves: CurveParams | None = Field(
        None, description="how far patches work drawn otherwise than they were made for; none: not measured"
    )
    physical: PhysicalParams | None = Field(None, description="paper, printer and camera; none: patches stay pixels")
    examples: int = Field(3, ge=0, le=50, description="test images that the report shows, with and without patches")

    @property
    def name_parts(self) -> tuple[str, ...]:
        return (self.data.name, "cloak")

    def detector_model(self, name: str) -> str:
        """The name in the model store of a detector that is trained here."""
        return f"{self.model_name}-{name}".replace("_", "-")

    def patch_model(self, name: str) -> str:
        """The name in the model store of a patch."""
        return f"{self.model_name}-patch-{name}".replace("_", "-")

    def search_of(self, patch: str) -> SearchParams:
        """How a patch is optimised."""
        section = self.patches[patch]
        own = {name: getattr(section, name) for name in ("objective", "ensemble") if getattr(section, name) is not None}
        return (section.search or self.search).model_copy(update=own)

    def against(self, patch: str) -> tuple[str, ...]:
        """The names of the detectors that a patch is optimised against."""
        return self.patches[patch].detectors or tuple(self.detectors)

    @property
    def victims(self) -> tuple[str, ...]:
        """The names of all detectors, with and without defences."""
        return (*self.detectors, *(victim for victim, _, _ in defended_names(self.defences, self.detectors)))

    @property
    def like(self) -> str:
        """The patch that controls are made of."""
        return self.controls.like or next(iter(self.patches))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, patch in self.patches.items():
            if name in RESERVED:
                raise FieldError(f"patches.{name}", f"have another name than {', '.join(RESERVED)}", name)
            for each in patch.detectors:
                if each not in self.victims:
                    self._refuse(f"patches.{name}.detectors", each, self.victims)
            if patch.start not in (*STARTS, *self.patches) or patch.start == name:
                others = tuple(each for each in self.patches if each != name)
                self._refuse(f"patches.{name}.start", patch.start, (*STARTS, *others))
            search = self.search_of(name)
            if min(search.size) <= self.rendering.median // 2:
                requirement = f"be more than {self.rendering.median // 2}, which rendering.median looks at"
                raise FieldError("search.size", requirement, search.size)
            if isinstance(search.ensemble, FixedWeights):
                for each in search.ensemble.weights:
                    if each not in self.victims:
                        self._refuse("search.ensemble.weights", each, self.victims)
        if len(set(self.victims)) < len(self.victims):
            twice = next(name for name in self.victims if self.victims.count(name) > 1)
            raise FieldError("detectors", "have names that are not those of detectors with defences", twice)
        self._check_order()
        for model in (*map(self.detector_model, self.detectors), *map(self.patch_model, self.patches)):
            check_name(model, "publish_as", "names of detectors and patches follow it")
        if self.controls.like is not None and self.controls.like not in self.patches:
            self._refuse("controls.like", self.controls.like, tuple(self.patches))
        if "test" in self.evaluation.data:
            raise FieldError("evaluation.data", "not be called test, which is the test split of params.data", "test")
        if self.evaluation.floor >= self.evaluation.confidence:
            requirement = f"be below evaluation.confidence, {self.evaluation.confidence:g}"
            raise FieldError("evaluation.floor", requirement, self.evaluation.floor)
        return self

    def _check_order(self) -> None:
        """FieldError if patches begin with each other in a circle."""
        for name in self.patches:
            seen, at = {name}, self.patches[name].start
            while at in self.patches:
                if at in seen:
                    raise FieldError(f"patches.{name}.start", "not lead back to itself", self.patches[name].start)
                seen.add(at)
                at = self.patches[at].start

    @staticmethod
    def _refuse(field: str, value: str, known: tuple[str, ...]) -> None:
        raise FieldError(field, f"be of {', '.join(known)}", value, nearest(value, known))
