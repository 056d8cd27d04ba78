"""AutoAttack: an ensemble of attacks without parameters to tune, each for the samples on which none before succeeded.

Sources: Croce & Hein 2020 ("Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks"); in L1 Croce & Hein 2021 ("Mind the box"). The fast version has its order, its early ends and what it sets
aside from Yao et al. 2021 ("Automated discovery of adaptive attacks ...") and Liu et al. 2022 ("Practical evaluation of
adversarial robustness via adaptive auto attack").
"""

import math
from typing import Literal

import torch
from pydantic import Field

from jobs.common.attacks import checks
from jobs.common.attacks.apgd import APGD, APGDTargeted
from jobs.common.attacks.ball import Norm
from jobs.common.attacks.base import Attack, Cost, Model, Search
from jobs.common.attacks.fab import FAB
from jobs.common.attacks.losses import LossName, fewest_classes, margin
from jobs.common.attacks.prepared import FEW, attack_prepared, prepared
from jobs.common.attacks.square import Square

Version = Literal["standard", "plus", "rand", "fast"]

PASSES = 20  # averaged by the rand version, at least
SHARES = {"apgd_t_1": 1.0, "apgd_t_3": 1.0, "apgd_t": 0.5, "fab_t": 0.5, "square": 1.0}
"""of the fast version: which of the remaining samples each attack goes on with, those nearest to their goal"""


class AutoAttack(Attack):
    """The ensemble on one batch. Every component begins with the seed of the whole.

    The fast version is not AutoAttack, and its robust accuracy is an upper bound of that of the standard one. It begins
    with the likeliest class and few steps, which suffice for most samples that are not robust, and goes on with ever
    longer attacks on ever fewer samples: those whose margin is nearest to the goal after the last.

    A model with fewer than 10 classes is attacked towards those that it has; one with too few for the difference of
    logits ratio, with the margin.
    """

    kind: Literal["autoattack"] = Field("autoattack", description="an ensemble of two to six attacks, in turn")
    version: Version = Field(
        "standard", description="standard; plus: more restarts; rand: for models that are random; fast: not exact"
    )
    queries: int = Field(5000, ge=1, le=1_000_000, description="queries of Square")

    @property
    def averaged(self) -> int:
        return max(self.passes, PASSES) if self.version == "rand" else self.passes

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
            case "fast":
                large = {"large_epsilon": norm == "L1"}
                return {
                    "apgd_t_1": apgd_t.model_copy(update={"targets": 1, "steps": 20, **large}),
                    "apgd_t_3": apgd_t.model_copy(update={"targets": 3, "steps": 40, **large}),
                    "apgd_t": apgd_t.model_copy(update={"steps": 60, **large}),
                    "fab_t": fab_t.model_copy(update={"targets": 3, "steps": 50}),
                    "square": square.model_copy(update={"queries": max(1, self.queries // 10), "rescale": True}),
                }
            case "rand":
                return {"apgd_ce": APGD(), "apgd_dlr": APGD(loss=ratio(targeted))}

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        parts = [part.cost(norm, classes, targeted) for part in self.components(norm, classes, targeted).values()]
        doubts = 1 if self.for_random_models else checks.PASSES + checks.MORE_PASSES + 1
        nearness = len(parts) if self.version == "fast" else 0
        return Cost(sum(part.forward for part in parts) + doubts + nearness, sum(part.backward for part in parts))

    def attack(self, search: Search, generator: torch.Generator) -> None:
        classes = search.clean_logits.shape[1]
        model, images, labels = search.model, search.images, search.goal.labels
        randomised = [] if self.for_random_models else checks.randomised(model, images, labels)
        targets = 0 if self.for_random_models else APGDTargeted().targets
        search.warnings += checks.few_classes(classes, targets) + randomised + checks.gradients_inside(model, images)
        # a trace would hold fast to what is random
        ready = model if self.for_random_models or randomised else prepared(model, images[:FEW])
        for name, component in self.components(search.ball.norm, classes, search.goal.targets is not None).items():
            if self.version == "fast":
                _set_aside(search, SHARES[name], ready)
            before = 1 - float(search.successful.double().mean())
            attack_prepared(component, search, ready, generator.initial_seed())
            if name == "square":
                search.warnings += checks.square_after_gradients(before, 1 - float(search.successful.double().mean()))


def _set_aside(search: Search, share: float, ready: Model) -> None:
    """Go on with a share of the samples that remain, those whose margins are the largest at the last points tried.

    ready: the model to ask.
    """
    rows = search.remaining
    count = math.ceil(share * len(rows))
    if count < len(rows):
        margins = margin(search.logits(rows, search.adversarials[rows], ready), search.goal[rows])
        search.set_aside[rows[margins.argsort(stable=True)[: len(rows) - count]]] = True
