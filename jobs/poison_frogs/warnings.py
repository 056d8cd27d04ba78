"""What makes the numbers of a run say less than they seem to."""

from jobs.poison_frogs.defences.defence_params import DeepKnn
from jobs.poison_frogs.defences.filters import starved
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.results import Results
from jobs.poison_frogs.victims.heads import HeadParams


def warnings_of(params: Params, results: Results) -> list[str]:
    """One sentence for each doubt."""
    targets, crafts, retraining = results.targets, results.crafts, results.retraining
    sentences, made = [], crafts.made.values()
    if wrong := [target.index for target in targets if target.margin <= 0]:
        sentences.append(f"{len(wrong)} targets are misclassified without poison, which flatters success: {wrong[:10]}")
    if copies := [target.index for target in targets if target.neighbour == 0]:
        sentences.append(f"{len(copies)} targets are copies of training images, which resist poisons: {copies[:10]}")
    if params.setups is not None and (
        repeated := [params.setups.first + each.group for each in targets if len(set(each.bases)) < len(each.bases)]
    ):
        sentences.append(
            f"{len(repeated)} setups hold a base more than once: each time a poison is made of it, and takes the place "
            f"of one more image of its class: {repeated[:10]}"
        )
    if lacking := sum(crafts.keys(at, count) is None for at in range(len(targets)) for count in params.poisons):
        sentences.append(f"{lacking} targets lack poisons, because cells failed: they are left out of the rates")
    if odd := sum(one.stopped == "not finite" for one in made):
        sentences.append(f"{odd} crafts met values that are not finite and stopped there")
    if still := sum(one.change == 0 for one in made):
        # of a convex polytope the simplex gives some no weight
        why = "they have no part in it" if crafts.together else "the steps are too small, or β is too large"
        sentences.append(f"{still} poisons are their bases unchanged: {why}")
    far = sum(one.collision >= targets[at].neighbour for (at, _, _), one in crafts.made.items())
    if far and not crafts.together:  # those that are made together need not be near, each by itself
        sentences.append(
            f"{far} of {len(made)} poisons are no nearer to their target than its nearest training image is"
        )
    count, size = retraining.size or len(retraining.rows), retraining.features.shape[1]
    heads = {name: victim for name, victim in params.victims.items() if isinstance(victim, HeadParams)}
    if heads and size < count:
        sentences.append(f"{size} features for {count:,} training images: a head cannot fit every one of them")
    for name, head in heads.items():
        if head.l2 >= 1e-3:
            sentences.append(
                f"{name}: a penalty of {head.l2:g} keeps a head from fitting single images, poisons or not"
            )
    if params.repeats == 1 and (names := ", ".join(name for name in params.victims if name not in heads)):
        sentences.append(f"{names}: one victim for each target; with another seed some end otherwise, see `repeats`")
    # all training sets have as many images of a class
    control = {"bases": list(targets[0].bases), "base_class": targets[0].base_class, "poisons": [], "flips": 0}
    labels = retraining.subject.images.labels[retraining.rows[retraining.clean_rows(control)]]
    for name, defence in params.defences.items():
        if isinstance(defence, DeepKnn) and (classes := starved(labels, defence.k)):
            names = ", ".join(retraining.test.classes[each] for each in classes)
            sentences.append(f"{name}: k = {defence.k} can drop all images of {names}, which have too few")
    return sentences
