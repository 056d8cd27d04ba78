"""The networks of a run: trained at each resolution, loaded, and behind an average of replicated pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from jobs.common.attacks import Ball
from jobs.common.data.images.base import ImageSet
from jobs.common.data.images.relabelled import with_classes
from jobs.common.data.training_data import TrainingImages
from jobs.common.models.cards import classifier_card
from jobs.common.models.fit import check_fit
from jobs.common.models.network_params import StoredNetwork
from jobs.common.training.adversarial.training import train
from jobs.inevitability.params import Params
from jobs.inevitability.resolutions import Averaged, at_resolution, factor
from service.run import Run

Kind = Literal["trained", "given", "averaged"]


@dataclass(frozen=True)
class Variant:
    """A network at one resolution, in evaluation mode on the CPU, and the test images that it is measured on."""

    name: str
    """of the network in the spec"""
    kind: Kind
    """trained here, given, or a network of resolution 1 behind the average of replicated pixels"""
    resolution: int
    network: nn.Module
    images: ImageSet

    @property
    def label(self) -> str:
        """What figures and sentences call it."""
        if self.resolution == 1:
            return self.name
        return f"{self.name} x{self.resolution}" + (", averaged" if self.kind == "averaged" else "")


def untrained(params: Params, images: ImageSet) -> list[Variant]:
    """The networks that are to be trained, with weights that do not matter: to see whether all fits."""
    return [
        Variant(name, "trained", resolution, each.classifier_at(resolution).build(images, 0).eval(), larger)
        for name, each in params.trained.items()
        for resolution in params.resolutions
        for larger in [at_resolution(images, resolution)]
    ]


def given(params: Params, images: ImageSet, run: Run) -> list[Variant]:
    """The networks that are there. InputError: one that is no classifier, or has not the classes of the images."""
    variants = []
    for name, each in params.networks.items():
        if isinstance(each, StoredNetwork):
            model = each.load(run)
            model.check_task("classification")
            model.compare_shape(images, run)
            labelled = images
            if model.classes is not None:
                labelled = with_classes(images, model.classes, images.name, f"model {model.name!r}")
            variants.append(Variant(name, "given", 1, model.network, labelled))
    return variants


def trained(params: Params, images: ImageSet, run: Run) -> list[Variant]:
    """Train networks at every resolution, and save them. images: to test."""
    if not params.trained:
        return []
    networks = run.reserved(train_networks, params)
    return [
        Variant(name, "trained", resolution, network, at_resolution(images, resolution))
        for (name, resolution), network in networks.items()
    ]


def averaged(params: Params, variants: list[Variant]) -> list[Variant]:
    """Every network of resolution 1 at the other resolutions, behind an average."""
    return [
        Variant(each.name, "averaged", resolution, Averaged(each.network, resolution).eval(), larger)
        for each in variants
        for resolution in params.resolutions
        if params.averaged and each.resolution == 1 < resolution
        for larger in [at_resolution(each.images, resolution)]
    ]


def in_order(params: Params, variants: list[Variant]) -> list[Variant]:
    """As the spec names the networks; those of one network stay as they are, by resolution."""
    return sorted(variants, key=lambda each: list(params.networks).index(each.name))


def train_networks(run: Run, params: Params) -> dict[tuple[str, int], nn.Module]:
    """Train networks one after another, by name and resolution, each as a phase of the run."""
    images, _ = params.data.load_splits()
    run.expect(sum(each.training.updates for each in params.trained.values()) * len(params.resolutions))
    networks: dict[tuple[str, int], nn.Module] = {}
    first_step = 0
    for name, each in params.trained.items():
        for resolution in params.resolutions:
            larger, plan = at_resolution(images, resolution), each.training
            network = each.classifier_at(resolution).build(larger, run.seed_for("weights", name, resolution))
            network.to(run.device)
            check_fit(network, larger, each.classifier.name)
            home = plan.engine.home(run.device)
            data = TrainingImages(larger, plan.held_out, plan.batch, plan.augmentation, run.seed_for, home)
            ball = Ball(each.threat.norm, each.threat.epsilon * factor(each.threat.norm, resolution))
            train(network, data, each.method, ball, plan, run, f"{name}_x{resolution}", first_step)
            networks[name, resolution] = network.cpu().eval()
            first_step += plan.updates
    return networks


def save(params: Params, variants: list[Variant], predictions: Mapping[str, Tensor], run: Run) -> None:
    """Put the networks that were trained into the store. predictions: of each for its images, by its label."""
    for each in variants:
        if each.kind != "trained":
            continue
        section = params.trained[each.name]
        clean = float((predictions[each.label] == each.images.labels).double().mean())
        replicated = f", pixels replicated {each.resolution}x{each.resolution}" if each.resolution > 1 else ""
        card = classifier_card(
            "inevitability",
            section.classifier_at(each.resolution),
            each.images,
            metrics={"clean": clean},
            description=f": {section.method.label} training{replicated}",
            settings={"method": section.method.model_dump(mode="json"), "resolution": each.resolution},
        )
        run.save_model(params.model_name(each.name, each.resolution), each.network, card)


def never_predicted(predictions: Tensor, images: ImageSet) -> list[str]:
    """The classes of the images that a network names for none of them. predictions: int64 (images,)."""
    named, present = set(predictions.tolist()), set(images.labels.tolist())
    return [name for label, name in enumerate(images.classes) if label in present and label not in named]
