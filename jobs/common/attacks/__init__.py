"""Adversarial attacks: one interface (base.py), one attack a file, and the pieces that they share.

    attack = PGD(steps=20)                                  # or ATTACKS["pgd"].model_validate({"steps": 20})
    result = attack.run(model, images, labels, Ball("Linf", 8 / 255))

Models that classify pixels are attacked in the same way, with maps of labels (batch, height, width); by FGSM and PGD.

`AttackParams` is the type of a field that names an attack and its options: {kind: pgd, steps: 20}.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from jobs.common.attacks.apgd import APGD, APGDTargeted
from jobs.common.attacks.autoattack import AutoAttack
from jobs.common.attacks.ball import Ball, Norm
from jobs.common.attacks.base import Attack, Goal, Loss, Model, Result, Search
from jobs.common.attacks.carlini_wagner import CarliniWagner
from jobs.common.attacks.ddn import DDN
from jobs.common.attacks.fab import FAB
from jobs.common.attacks.fmn import FMN
from jobs.common.attacks.hop_skip_jump import HopSkipJump
from jobs.common.attacks.pgd import FGSM, PGD
from jobs.common.attacks.sigma_zero import SigmaZero
from jobs.common.attacks.sparse_rs import SparseRS
from jobs.common.attacks.square import Square

__all__ = [
    "APGD",
    "ATTACKS",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "PGD",
    "APGDTargeted",
    "Attack",
    "AttackParams",
    "AutoAttack",
    "Ball",
    "CarliniWagner",
    "Goal",
    "HopSkipJump",
    "Loss",
    "Model",
    "Norm",
    "Result",
    "Search",
    "SigmaZero",
    "SparseRS",
    "Square",
]

AttackParams = Annotated[
    FGSM
    | PGD
    | CarliniWagner
    | APGD
    | APGDTargeted
    | FAB
    | DDN
    | FMN
    | SigmaZero
    | SparseRS
    | Square
    | HopSkipJump
    | AutoAttack,
    Field(discriminator="kind"),
]

ATTACKS: Mapping[str, type[Attack]] = {
    attack.model_fields["kind"].default: attack
    for attack in (
        *(FGSM, PGD, CarliniWagner, APGD, APGDTargeted, FAB, DDN, FMN, SigmaZero),
        *(SparseRS, Square, HopSkipJump, AutoAttack),
    )
}
"""Every attack by its kind."""
