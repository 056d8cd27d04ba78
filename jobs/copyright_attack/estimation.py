"""What a trial costs, before it is done: steps of attacks, clips that are judged, seconds on a core here."""

import torch

from jobs.common.audio.fingerprints.fingerprint import FingerprintParams
from jobs.common.estimation import least_seconds, measured_once
from jobs.copyright_attack.attack.objectives import RingObjective, prepared
from jobs.copyright_attack.clips import NOISES
from jobs.copyright_attack.identification.benchmark import excerpts
from jobs.copyright_attack.params import NamedAttack, Params
from service.run import Estimate

JUDGED = 0.15  # seconds of a core that a judge takes for an excerpt of 12 seconds, about
SEARCHES = 13  # questions to a judge until a norm is found, about
DRAWN = 3.0  # cost of a step with transformations: peaks of each draw are found anew, and coders take time


def estimate(params: Params) -> Estimate:
    """Attacks and questions to judges. What judges that learn take to be trained is not in it."""
    songs = params.songs or params.data.enrolled
    seconds = 0.0
    for attack in params.attacks.values():
        step = _step_seconds(params, attack) * songs
        draws = 1.0 if attack.transformations is None else DRAWN * attack.transformations.draws
        seconds += step * draws * attack.steps * len(attack.epsilons)
    if params.universal is not None:
        made = params.universal.attack
        seconds += _step_seconds(params, made) * params.data.others * made.steps * len(made.epsilons)
    sizes = sum(len(attack.epsilons) for attack in params.attacks.values())
    sizes += 0 if params.universal is None else len(params.universal.attack.epsilons)
    clips = songs * (1 + sizes * (1 + len(NOISES)) + (1 + sizes) * len(params.encodings)) + params.data.others
    questions = float(clips * len(params.judges.names))
    if params.ratio is not None:
        questions += 3 * SEARCHES * songs * len(params.judges.names)
    if params.identification is not None:
        found = excerpts(params.identification, params.data.enrolled, params.data.others)
        questions += found * len(params.judges.names)
    if params.queries is not None:
        asked = min(params.queries.songs, songs) * len(params.queries.judges)
        questions += asked * params.queries.queries
    cells = sum(-(-songs // params.batch) * len(attack.epsilons) for attack in params.attacks.values())
    return Estimate(
        core_seconds=seconds + questions * JUDGED * params.seconds / 12,
        pieces=max(cells, len(params.judges.names)),
        details={"songs that are attacked": songs, "clips": clips, "questions to judges": questions},
    )


def _step_seconds(params: Params, attack: NamedAttack) -> float:
    """Of one step of one song."""
    names = attack.fingerprints or tuple(params.fingerprints)
    members = tuple(params.fingerprints[name] for name in names)
    return step_seconds(members, params.data.rate, round(params.seconds * params.data.rate))


@measured_once
def step_seconds(fingerprints: tuple[FingerprintParams, ...], rate: int, samples: int) -> float:
    """Of a forward and a backward pass of one sound through fingerprints: measured in less than a second."""
    sound = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    changed = sound.clone().requires_grad_()
    loss = prepared(RingObjective(), [each.build() for each in fingerprints], sound, rate)
    return least_seconds(lambda: torch.autograd.grad(loss(changed).sum(), [changed]), 3)
