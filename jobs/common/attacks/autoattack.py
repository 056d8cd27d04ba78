"""AutoAttack: an ensemble of attacks without parameters to tune, each for the samples on which none before succeeded.

Sources: Croce & Hein 2020 ("Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks"); in L1 Croce & Hein 2021 ("Mind the box").
"""

from typing import Literal

import torch
from pydantic import Field

from jobs.common.attacks import checks
from jobs.common.attacks.apgd import APGD, APGDTargeted
from jobs.common.attacks.ball import Norm
from jobs.common.attacks.base import Attack, Cost, Search
from jobs.common.attacks.fab import FAB
from jobs.common.attacks.losses import LossName, fewest_classes
from jobs.common.attacks.prepared import prepared
from jobs.common.attacks.square import Square

Version = Literal["standard", "plus", "rand"]

PASSES = 20  # of the rand version
FEW = 8  # images that show whether a prepared model is right


class AutoAttack(Attack):
    """The ensemble on one batch. Every component begins with the seed of the whole.

    A model with fewer than 10 classes is attacked towards those that it has; one with too few for the difference of
    logits ratio, with the margin.
    """

    kind: Literal["autoattack"] = Field("autoattack", description="an ensemble of four to six attacks, in turn")
    version: Version = Field("standard", description="standard; plus: more restarts; rand: for models that are random")
    queries: int = Field(5000, ge=1, le=1_000_000, description="queries of Square")

    @property
    def for_random_models(self) -> bool:
        return self.version == "rand"

    def components(self, norm: Norm, classes: int, targeted: bool = False) -> dict[str, Attack]:
        """The attacks in their order, by name. classes: of the model; targeted: the search has targets of its own."""

        def ratio(targeted: bool) -> LossName:
            return "dlr" if classes >= fewest_classes("dlr", targeted) else "margin"

        apgd_t = APGDTargeted(loss=ratio(targeted=True))
        fab_t = FAB(minimise=False)
        square = Square(queries=self.queries)
        match self.version:
            case "standard" if norm == "L1":
                apgd_ce = APGD(restarts=5, large_epsilon=True)
                apgd_t = apgd_t.model_copy(update={"targets": 5, "large_epsilon": True})
                return {"apgd_ce": apgd_ce, "apgd_t": apgd_t, "fab_t": fab_t, "square": square}
            case "standard":
                return {"apgd_ce": APGD(), "apgd_t": apgd_t, "fab_t": fab_t, "square": square}
            case "plus":
                return {
                    "apgd_ce": APGD(restarts=5),
                    "apgd_dlr": APGD(loss=ratio(targeted), restarts=5),
                    "fab": FAB(targets=0, restarts=5, minimise=False),
                    "square": square,
                    "apgd_t": apgd_t,
                    "fab_t": fab_t,
                }
            case "rand":
                return {"apgd_ce": APGD(passes=PASSES), "apgd_dlr": APGD(loss=ratio(targeted), passes=PASSES)}

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        parts = [part.cost(norm, classes, targeted) for part in self.components(norm, classes, targeted).values()]
        doubts = 1 if self.for_random_models else checks.PASSES + checks.MORE_PASSES + 1
        return Cost(sum(part.forward for part in parts) + doubts, sum(part.backward for part in parts))

    def attack(self, search: Search, generator: torch.Generator) -> None:
        classes = search.clean_logits.shape[1]
        model, images, labels = search.model, search.images, search.goal.labels
        randomised = [] if self.for_random_models else checks.randomised(model, images, labels)
        targets = 0 if self.for_random_models else APGDTargeted().targets
        search.warnings += checks.few_classes(classes, targets) + randomised + checks.gradients_inside(model, images)
        if not (self.for_random_models or randomised):  # a trace would hold fast to what is random
            search.model = prepared(model, images[:FEW])
        for name, component in self.components(search.ball.norm, classes, search.goal.targets is not None).items():
            before = 1 - float(search.successful.double().mean())
            component.attack(search, torch.Generator(search.images.device).manual_seed(generator.initial_seed()))
            if name == "square":
                search.warnings += checks.square_after_gradients(before, 1 - float(search.successful.double().mean()))
