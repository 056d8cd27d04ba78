"""One change for all songs: made on some, it is added to others that it has never met.

Source: Moosavi-Dezfooli et al. 2017, "Universal adversarial perturbations".
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from jobs.common.audio.fingerprints.fingerprint import Fingerprint
from jobs.common.training import rules
from jobs.copyright_attack.attack.objectives import prepared
from jobs.copyright_attack.attack.search import AttackParams, check_sounds
from service.errors import FieldError


def universal(
    songs: Tensor, rate: int, fingerprints: Sequence[Fingerprint], params: AttackParams, epsilon: float, seed: int
) -> Tensor:
    """A change (samples,) that lowers the mean loss of many songs, wherever in it they begin: its ends are neighbours.

    songs: (batch, samples) in [-1, 1]. params: of a bound on samples or a norm, without remix. epsilon: size of the
    bound. seed: of where songs begin.
    """
    check_sounds(songs, rate, fingerprints)
    if params.bound.kind == "masking":
        raise FieldError("bound", "be linf or lp for one change of all songs", params.bound.kind)
    if params.objective.kind == "remix":
        raise FieldError("objective", "be overlap or ring for one change of all songs", params.objective.kind)
    generator = torch.Generator().manual_seed(seed)
    limit = params.bound.around(songs[:1], rate, epsilon)
    losses_of = prepared(params.objective, fingerprints, songs, rate)
    # noise to begin with: from silence the first step would go by the loudest song alone
    start = 0.1 * epsilon * torch.randn(1, songs.shape[1], generator=generator).to(songs)
    change = limit.project(start).requires_grad_()
    optimizer = rules.Adam([change], params.step_size * epsilon, fused=True)
    for _ in range(params.steps):
        turn = int(torch.randint(songs.shape[1], (1,), generator=generator))
        losses = losses_of((songs + change.roll(turn, 1)).clamp(-1, 1))
        (change.grad,) = torch.autograd.grad(losses.mean(), [change])
        optimizer.step()
        with torch.no_grad():
            change.copy_(limit.project(change))
    return change.detach()[0]
