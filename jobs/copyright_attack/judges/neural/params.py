"""What a spec says of the neural fingerprint."""

from pydantic import Field

from jobs.common.audio.transformations import TransformationParams
from jobs.common.data.music import MusicParams
from jobs.common.params import StudyParams
from jobs.common.training.engine import EngineParams
from jobs.common.training.optimizers import OptimizerParams
from jobs.common.training.schedules import CosineDecay

TUNES = MusicParams(enrolled=40, others=1, seed=1_000_003)


class AdversarialParams(StudyParams):
    """Perturbations that the fingerprint is trained to bear (Madry et al. 2018, on waveforms)."""

    epsilon: float = Field(0.02, gt=0, le=1, description="the most that a sample is changed, of full scale")
    steps: int = Field(2, ge=1, le=100, description="steps of gradient ascent for each update of the weights")


class NeuralParams(StudyParams):
    """How the neural fingerprint is trained, on music that is neither enrolled nor asked for."""

    music: MusicParams = Field(TUNES, description="songs that it learns from; `others` are left out")
    updates: int = Field(300, ge=1, le=1_000_000, description="of the weights")
    pairs: int = Field(48, ge=2, le=4096, description="seconds of music in a minibatch, each with a distorted copy")
    shift: float = Field(0.25, ge=0, le=0.5, description="seconds that a copy begins earlier or later, at most")
    noise: tuple[float, float] = Field(
        (0.0, 20.0), description="decibels of a copy over the noise that is added, from and to"
    )
    distortion: TransformationParams = Field(
        TransformationParams(shift=0, speed=0.02, gain=0.5, noise=0, time_mask=0.2, frequency_mask=0.2),
        description="other random changes of a copy",
    )
    optimizer: OptimizerParams = Field(
        OptimizerParams(kind="adam", learning_rate=2e-3, weight_decay=0, decay=CosineDecay()),
        description="how the weights are moved; its ticks are updates",
    )
    engine: EngineParams = Field(EngineParams(), description="how the network computes while it is trained")
