"""Which figures a run has: what is drawn of its targets, poisons and outcomes."""

import torch

from jobs.poison_frogs import figures
from jobs.poison_frogs.features import Features
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.poisons.crafting import Craft
from jobs.poison_frogs.results import Results
from jobs.poison_frogs.targets.selection import Target
from jobs.poison_frogs.victims.angles import class_vector
from jobs.poison_frogs.victims.outcomes import Outcome, rates
from jobs.poison_frogs.victims.retraining import head_name
from service.run import Run

ARROWS = 60  # from bases to poisons at most


def draw(params: Params, results: Results, run: Run) -> None:
    """All figures of a run, of the first kind of victim without defence and the largest number of poisons."""
    first, most = next(iter(params.victims)), params.poisons[-1]
    outcomes = [one for one in results.outcomes if (one.victim, one.defence, one.repeat) == (first, "", 0)]
    last = {one.place: one for one in outcomes if one.control == "poison" and one.poisons == most}
    _draw_examples(params, results, last, run)
    rows = rates(results.outcomes)
    if curves := figures.curves(rows):
        run.figure(
            "success",
            figures.success(curves, figures.controls_of(rows, first)),
            title=f"Success against the number of poisons, with 95 % intervals; grey: controls of {first}",
        )
    if not last:
        return
    clean = [one.confidence for one in outcomes if one.control == "no poison"]
    confidences, angles = [one.confidence for one in last.values()], [one.rotation for one in last.values()]
    title = f"{first}, {most} poison" if most == 1 else f"{first}, {most} poisons"
    run.figure("histograms", figures.histograms(confidences, clean, angles, title), title="Confidence and rotation")
    run.figure(
        "distances",
        figures.distances(
            [min(poison.collision for poison in results.crafts.of(place, most)) for place in last],
            [one.target.neighbour for one in last.values()],
            [one.verdict == "base class" for one in last.values()],
        ),
        title="How near the nearest poison of each target came, in features",
    )
    if not params.layers:
        _draw_plane(results, most, first, run)


def _draw_examples(params: Params, results: Results, last: dict[int, Outcome], run: Run) -> None:
    """The first poison of a few targets. last: outcomes by the place of their target."""
    test, (base_images, _) = results.retraining.test, results.retraining.bases
    examples = [
        figures.Example(
            target=test.images(torch.tensor([poison.target]))[0],
            base=base_images.images(torch.tensor([poison.base]))[0],
            poison=poison.pixels,
            true_class=test.classes[target.true_class],
            base_class=test.classes[target.base_class],
            caption=last[place].verdict if place in last else "",
        )
        for place, target in enumerate(results.targets[: params.show])
        for poison in results.crafts.of(place, params.poisons[-1])[:1]
    ]
    if examples:
        title = "Targets, bases, poisons and what was changed; left: the verdict"
        run.figure("poisons", figures.poison_rows(examples), title=title)


def _draw_plane(results: Results, most: int, victim: str, run: Run) -> None:
    """The first pair's features in two dimensions: clean training images, a few targets, and their poisons."""
    targets, crafts, retraining = results.targets, results.crafts, results.retraining
    true_class, base_class = targets[0].true_class, targets[0].base_class

    def drawn(place: int, target: Target) -> list[Craft]:
        same_pair = (target.true_class, target.base_class) == (true_class, base_class)
        return crafts.of(place, most) if same_pair else []

    places = [place for place, target in enumerate(targets) if drawn(place, target)][: max(1, min(5, ARROWS // most))]
    labels = retraining.subject.images.labels[retraining.rows]
    rows = torch.isin(labels, torch.tensor([true_class, base_class])).nonzero().flatten()
    features, of_base = retraining.features[rows], labels[rows] == base_class
    if not places or bool(of_base.all()) or not bool(of_base.any()):
        return
    head = retraining.clean_heads.get(head_name(victim, 0, targets[0].group))
    if head is not None:
        weight = class_vector(head.weight, retraining.task.index(base_class))
    else:
        image = retraining.test.images(torch.arange(1))
        weight = class_vector(Features(retraining.subject.network.cpu(), image).last.weight.detach(), base_class)
    axes = figures.plane(features, of_base, weight)
    poisons = [poison for place in places for poison in crafts.of(place, most)]
    classes = retraining.test.classes
    projection = figures.Projection(
        clean=(features @ axes.T).numpy(),
        of_base=of_base.numpy(),
        targets=(retraining.test_features[[targets[place].index for place in places]] @ axes.T).numpy(),
        poisons=(torch.stack([one.features for one in poisons]) @ axes.T).numpy(),
        bases=(retraining.bases[1][[one.base for one in poisons]] @ axes.T).numpy(),
        names=(classes[true_class], classes[base_class]),
    )
    title = "Features of the attacked network, before anything is retrained"
    run.figure("features", figures.projection(projection), title=title)
