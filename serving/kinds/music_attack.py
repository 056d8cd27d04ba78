"""Attacks on databases of songs: a sound is changed until its fingerprint is another, by no more than a bound.

Input: "sounds", or an uploaded sound. Parameters:

    epsilon      size of the bound, in its unit; required
    norm         "Linf" (default): the largest change of a sample; "RMS": the root mean square of the change; both in
                 units of full scale. "masking": in every critical band, times what the sound itself hides
    attack       "ring" (default) or "overlap": what is minimised; the other parameters are those of the attack
    steps        default 100
    transformed  default false: whether the change is to survive gain, shifts and lossy coding, drawn anew at each step
    seed         default 0, of these

Outputs, beside the adversarials, which are as a WAV of 16 bits holds them: the match before and after, as inference
answers it; the norms of the change (linf, l2) and the ratio of sound to change (snr, in dB, 200 at most);
the share of the sound's peaks that are left (overlap); whether the sound was identified and is not taken for the same
song any more (successful). With `Accept: audio/wav` the answer is the one changed sound, and the others are headers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from jobs.common.audio.files import wav
from jobs.common.audio.fingerprints.card import SOUNDS
from jobs.common.audio.fingerprints.database import NONE, Match
from jobs.copyright_attack.attack.bounds import LinfBound, LpBound, MaskingBound
from jobs.copyright_attack.attack.objectives import OverlapObjective, RingObjective, survival
from jobs.copyright_attack.attack.search import AttackParams, check_sounds, descend, loss_of
from jobs.copyright_attack.attack.transformations import TransformationParams
from service.errors import FieldError, InputError
from service.planning.validation import validate
from serving.http.messages import Form
from serving.http.protocol import InferRequest, Scalar, check_parameters, fitted
from serving.http.settings import Attacks
from serving.http.tensors import Array
from serving.http.uploads import WAV_MEDIA
from serving.kinds.attack_options import MOST_SEED, SEED
from serving.kinds.base import choice, whole_number
from serving.kinds.budget import Words, check_budget, too_late
from serving.kinds.work import Answer, AttackCost, Attacked, AttackWork, Rendering, Stopped, check_of

if TYPE_CHECKING:
    from serving.kinds.music_identification import MusicIdentification

OBJECTIVES: Mapping[str, type[RingObjective | OverlapObjective]] = {"ring": RingObjective, "overlap": OverlapObjective}
NORMS: Mapping[str, Any] = {"Linf": LinfBound(), "RMS": LpBound(p=2), "masking": MaskingBound()}
DEFAULT, DEFAULT_NORM = "ring", "Linf"
COMMON = ("attack", "epsilon", "norm", "steps", "step_size", "transformed", "seed")
UNCHANGED = 200.0  # dB of a sound over a change of nothing
IDENTIFICATIONS = 2  # passes beside those of the steps: before and after
FEWER = "send fewer or shorter sounds, or ask for fewer steps"
WORDS = Words("the attack", SOUNDS, "sound", "fingerprint", "ask for fewer steps", FEWER)


def _described() -> dict[str, Any]:
    """Attacks by name, as `serving.kinds.attack_options` describes those on images."""
    schema = AttackParams.model_json_schema()["properties"]
    common = {name: _without_title(schema[name]) for name in ("steps", "step_size")}
    common["transformed"] = {
        "type": "boolean",
        "default": False,
        "description": "the change is to survive gain, shifts and lossy coding, drawn anew at each step",
    }
    return {
        name: {
            "norms": list(NORMS),
            "description": (objective.__doc__ or "").strip(),
            "parameters": {
                **common,
                **{
                    option: _without_title(value)
                    for option, value in objective.model_json_schema()["properties"].items()
                    if option != "kind"
                },
                "seed": SEED,
            },
        }
        for name, objective in OBJECTIVES.items()
    }


def _without_title(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "title"}


DESCRIBED = _described()


@dataclass(frozen=True)
class SoundPerturbation:
    """The part of a request that is the same for all of its sounds."""

    params: AttackParams
    norm: str
    epsilon: float
    seed: int

    @classmethod
    def parse(cls, parameters: Mapping[str, Scalar]) -> "SoundPerturbation":
        """InputError about the first parameter that is unknown or not allowed."""
        kind = choice("attack", parameters.get("attack", DEFAULT), OBJECTIVES)
        options = OBJECTIVES[kind].model_fields.keys() - {"kind"}
        check_parameters(parameters, (*COMMON, *sorted(options)))
        norm = choice("norm", parameters.get("norm", DEFAULT_NORM), NORMS)
        transformed = parameters.get("transformed", False)
        if not isinstance(transformed, bool):
            raise FieldError("parameter 'transformed'", "be true or false", transformed)
        tree: dict[str, Any] = {name: parameters[name] for name in ("steps", "step_size") if name in parameters}
        objective = validate(OBJECTIVES[kind], _chosen(parameters, options), "parameters")
        params = validate(AttackParams, tree, "parameters").model_copy(
            update={
                "objective": objective,
                "bound": NORMS[norm],
                "transformations": TransformationParams() if transformed else None,
            }
        )
        seed = whole_number("seed", parameters.get("seed", 0), 0, MOST_SEED)
        return cls(params, norm, _epsilon(parameters.get("epsilon"), norm), seed)

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """All parameters, also those that had their default."""
        params = self.params
        common: dict[str, Scalar] = {
            "attack": params.objective.kind,
            "norm": self.norm,
            "epsilon": self.epsilon,
            "steps": params.steps,
            "step_size": params.step_size,
            "transformed": params.transformations is not None,
            "seed": self.seed,
        }
        return common | params.objective.model_dump(exclude={"kind"})

    @property
    def draws(self) -> int:
        """Passes through the fingerprint in a step."""
        return 1 if self.params.transformations is None else self.params.transformations.draws


@dataclass(frozen=True, eq=False)
class MusicAttack(AttackWork):
    """An attack on sounds (rows, samples)."""

    outputs: ClassVar[tuple[str, ...]] = (
        "adversarials",
        "song",
        "confidence",
        "seconds",
        "aligned",
        "adversarial_song",
        "adversarial_confidence",
        "adversarial_seconds",
        "adversarial_aligned",
        "successful",
        "overlap",
        "linf",
        "l2",
        "snr",
        "queries",
        "gradients",
    )

    model: "MusicIdentification"
    limits: Attacks
    perturbation: SoundPerturbation
    sounds: Tensor
    rendering: Rendering | None = None

    @property
    def rows(self) -> int:
        return len(self.sounds)

    @property
    def cost(self) -> AttackCost:
        passes = IDENTIFICATIONS + 2 * self.perturbation.params.steps * self.perturbation.draws
        return AttackCost(passes, self.model.gmacs(*self.sounds.shape))

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        return self.perturbation.parameters

    def check(self) -> None:
        """InputError if the attack does not go with its sounds, or takes more than is allowed."""
        check_sounds(self.sounds, self.model.database.rate, [self.model.database.fingerprint])
        check_budget(self.limits, self.rows, self.cost, WORDS)

    def compute(self, stopped: Stopped) -> Attacked:
        check_wanted = check_of(stopped, self.limits.seconds, too_late(self.limits, WORDS))
        model, perturbation, params = self.model, self.perturbation, self.perturbation.params
        fingerprint, rate = model.database.fingerprint, model.database.rate
        check_wanted()
        originals = self.sounds.to(model.device)
        before = model.identify(originals)
        losses_of = loss_of(originals, rate, [fingerprint], params, seed=perturbation.seed)

        def guarded(changed: Tensor) -> Tensor:
            check_wanted()
            return losses_of(changed)

        limit = params.bound.around(originals, rate, perturbation.epsilon)
        sounds = descend(originals, limit, guarded, params.steps, params.step_size).sounds
        check_wanted()
        after = model.identify(sounds)
        passes = np.full(self.rows, params.steps * perturbation.draws, np.int64)
        changes = (sounds - originals).double()
        outputs = {
            "adversarials": sounds.float().cpu().numpy(),
            **match_outputs(before),
            **{f"adversarial_{name}": values for name, values in match_outputs(after).items()},
            "successful": np.array(
                [one.song is not None and other.song != one.song for one, other in zip(before, after, strict=True)]
            ),
            "overlap": survival(fingerprint, originals, sounds, rate).float().cpu().numpy(),
            "linf": changes.abs().amax(1).float().cpu().numpy(),
            "l2": changes.norm(dim=1).float().cpu().numpy(),
            "snr": _ratio(originals, changes),
            "queries": passes + IDENTIFICATIONS,
            "gradients": passes,
        }
        warning = model.warning(self.sounds.shape[1])
        return Attacked({name: outputs[name] for name in self.outputs}, (warning,) if warning else ())


def prepare(model: "MusicIdentification", request: InferRequest, form: Form, limits: Attacks) -> MusicAttack:
    """Check everything that can be known before the model is called. InputError, one sentence."""
    sounds = fitted(request.inputs, model.inputs)[SOUNDS]
    model.check_sounds(sounds)
    if form.wav and len(sounds) != 1:
        raise InputError(f"a WAV is the answer for one sound, not for {len(sounds)}; ask for application/json")

    def written(answer: Answer) -> bytes:
        return wav(torch.from_numpy(answer["adversarials"][0]), model.database.rate)

    perturbation = SoundPerturbation.parse(request.parameters)
    rendering = Rendering(WAV_MEDIA, written) if form.wav else None
    # a copy: the sounds of a request may be a view of its body
    work = MusicAttack(model, limits, perturbation, torch.tensor(sounds), rendering)
    work.check()
    return work


def match_outputs(matches: Sequence[Match]) -> dict[str, Array]:
    """What is said of sounds, an array (rows,) each."""
    whole = {
        "song": [NONE if match.song is None else match.song for match in matches],
        "best": [match.best for match in matches],
        "aligned": [match.aligned for match in matches],
        "hashes": [match.hashes for match in matches],
        "runner_up": [match.runner_up for match in matches],
        "runner_up_aligned": [match.runner_up_aligned for match in matches],
    }
    real = {
        "confidence": [match.confidence for match in matches],
        "seconds": [match.seconds for match in matches],
    }
    return {
        **{name: np.array(values, np.int64) for name, values in whole.items()},
        **{name: np.array(values, np.float32) for name, values in real.items()},
    }


def _chosen(parameters: Mapping[str, Scalar], options: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name in options}


def _epsilon(epsilon: Scalar | None, norm: str) -> float:
    """The size of the bound. InputError unless it is above 0 and within what samples can change by."""
    if epsilon is None:
        raise InputError("parameter 'epsilon' is missing", "of full scale: 0.05 is loud, 0.005 is hardly heard")
    most = 1000 if norm == "masking" else 2
    if isinstance(epsilon, bool | str) or not 0 < epsilon <= most:
        raise FieldError("parameter 'epsilon'", f"be a number above 0 and at most {most:,}", epsilon)
    return float(epsilon)


def _ratio(originals: Tensor, changes: Tensor) -> Array:
    """Power of the sound over that of the change in dB: float32 (rows,)."""
    power, changed = originals.double().square().sum(1), changes.square().sum(1)
    ratio: Array = (10 * (power / changed.clamp(min=1e-30)).log10()).clamp(max=UNCHANGED).float().cpu().numpy()
    return ratio
