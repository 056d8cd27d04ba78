"""A weight update of a segmentation network: its loss, its batch norms, the rates of its parts, and its validation.

Source: Shah et al. 2018 and the code released with it (train_seg.py): the head learns ten times as fast as the
backbone and the biases of its convolutions twenty times; the learning rate follows a cosine over all updates.
"""

from typing import Any, Literal

from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.data.training_data import TrainingMasks
from jobs.common.metrics.segmentation import scores
from jobs.common.params import StudyParams
from jobs.common.training import loop, parallel
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams, device_of
from jobs.common.training.schedules import CosineDecay
from jobs.stacked_unets.evaluation import evaluate
from jobs.stacked_unets.network_params import backbone_prefix
from jobs.stacked_unets.objective import pixel_loss
from jobs.stacked_unets.prediction import PredictionParams
from service.errors import InputError
from service.run import Run


class BatchNormParams(StudyParams):
    """What happens to the batch norms of the backbone; those of the head are always trained."""

    policy: Literal["train", "freeze"] = Field(
        "train", description="freeze: they use and keep the statistics, scales and shifts that they began with"
    )
    momentum: float | None = Field(
        None, gt=0, le=1, description="weight of a batch in the running statistics; none: as the network has it"
    )


class TrainingParams(StudyParams):
    """How the weights are moved, and how training is watched."""

    updates: int = Field(500, ge=1, le=100_000_000, description="weight updates")
    batch: int = Field(8, ge=1, le=100_000, description="images in a pass, over all workers")
    accumulate: int = Field(1, ge=1, le=10_000, description="passes whose gradients are averaged for one update")
    optimizer: OptimizerParams = Field(
        OptimizerParams(kind="sgd", learning_rate=2e-4, momentum=0.95, weight_decay=1e-4, decay=CosineDecay()),
        description="how the weights are moved; its ticks are updates",
    )
    head_rate: float = Field(10.0, ge=0, le=1000, description="learning rate of the head, in units of the backbone's")
    head_bias_rate: float = Field(
        20.0, ge=0, le=1000, description="that of the biases of its convolutions, in units of the backbone's"
    )
    batch_norm: BatchNormParams = Field(BatchNormParams(), description="the batch norms of the backbone")
    easy_above: float | None = Field(
        None, gt=0, lt=1, description="pixels do not count whose true class has a higher probability; none: all do"
    )
    augmentation: JointAugmentationParams = Field(JointAugmentationParams(), description="random changes of each image")
    engine: EngineParams = Field(EngineParams(), description="how the network computes while it trains")
    report_every: int = Field(100, ge=1, description="weight updates between two validations, each with a checkpoint")
    held_out: int = Field(50, ge=1, description="training images that are kept for validation")
    keep: Literal["last", "best"] = Field("last", description="weights to keep: the last, or the best in validation")


def train(network: nn.Module, data: TrainingMasks, params: TrainingParams, run: Run) -> None:
    """Train a network in place. Goes on from the run's checkpoint if there is one, to the same weights bit for bit.

    With several ranks each has its rows of every batch; the weights are those of one process up to rounding.
    Logs what job.py says of training. RunFailedError if the loss stops being finite. InputError: half precision
    without a GPU, or a batch too small for batch norm.
    """
    params.engine.check(device_of(network))
    run.expect(params.updates)
    step = SegmentationStep(Engine(network, params.engine, params.accumulate), data, params)
    plan = loop.Plan(
        updates=params.updates,
        rates=params.optimizer,
        report_every=params.report_every,
        seed=lambda update: run.seed_for("dropout", update, parallel.rank()),
        best_by="val_mean_iou" if params.keep == "best" else None,
    )
    loop.train(step, params.optimizer.build(parameter_groups(step.engine.network, params)), data, plan, run)
    network.requires_grad_()


class SegmentationStep(loop.Step):
    """An update by the cross entropy of pixels, with batch norms of the backbone that may be frozen."""

    def __init__(self, engine: Engine, data: TrainingMasks, params: TrainingParams) -> None:
        super().__init__(engine)
        self.data, self.params = data, params
        self.frozen = prepare_batch_norms(engine.network, params.batch_norm)

    def train_mode(self) -> None:
        super().train_mode()
        for norm in self.frozen:
            norm.eval()

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        images, labels = batch
        try:
            logits = self.engine(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"batch: {self.params.batch} image of {images.shape[3]}x{images.shape[2]} leaves a batch norm one "
                "value for each channel, which has no variance",
                "two images or larger ones do, and so does batch_norm.policy freeze where it is in the backbone",
            ) from error
        loss = pixel_loss(logits, labels, self.params.easy_above)
        self.engine.scaled(loss).backward()  # type: ignore[no-untyped-call]
        return {"loss": Term(self.engine.share(loss.detach()), 1)}

    def validate(self, progress: loop.Progress) -> dict[str, float]:
        metrics = scores(evaluate(self.engine.network, self.data.held_out, PredictionParams())).metrics()
        return {**{f"val_{name}": value for name, value in metrics.items()}, "train_seconds": progress.seconds}


def parameter_groups(network: nn.Module, params: TrainingParams) -> list[tuple[float, list[nn.Parameter]]]:
    """What the learning rate is multiplied with, and the weights that it is for: backbone, head, biases of the head."""
    prefix = backbone_prefix(network)
    biases = {
        f"{name}.bias" for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    }
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            head = params.head_bias_rate if name in biases else params.head_rate
            groups.setdefault(1.0 if name.startswith(prefix) else head, []).append(parameter)
    return list(groups.items())


def prepare_batch_norms(network: nn.Module, params: BatchNormParams) -> list[nn.Module]:
    """Apply the policy to the batch norms of the backbone. Returns those that stay in evaluation mode."""
    prefix = backbone_prefix(network)
    norms: list[Any] = [
        layer for name, layer in network.named_modules() if isinstance(layer, _BatchNorm) and name.startswith(prefix)
    ]
    for norm in norms:
        if params.momentum is not None:
            norm.momentum = params.momentum
        if params.policy == "freeze":
            norm.requires_grad_(False)
    return norms if params.policy == "freeze" else []
