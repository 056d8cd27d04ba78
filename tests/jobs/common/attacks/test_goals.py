"""Attacks on models of pixels: the optimum is known where each pixel is classified by a linear model of its own."""

import pytest
import torch
from torch import Tensor, nn

from jobs.common.attacks import ATTACKS, FGSM, PGD, Ball
from jobs.common.attacks.ball import Norm
from service.errors import InputError

EPSILON = 0.05
IGNORED = -1


def linear(classes: int = 3, seed: int = 0) -> nn.Module:
    """Logits of each pixel from its own channels alone."""
    layer = nn.Conv2d(3, classes, 1)
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(seed))
        layer.bias.copy_(-layer.weight.sum((1, 2, 3)) / 2)  # grey is on the border of all classes
    return layer.eval()


def images(count: int = 4, side: int = 6) -> Tensor:
    return 0.2 + 0.6 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def margins(model: nn.Module, points: Tensor, wanted: Tensor, others: Tensor) -> Tensor:
    """By how much a class is ahead of another after the best move that all channels can make: the shape of the maps."""
    assert isinstance(model, nn.Conv2d)
    weights = model.weight.detach()[:, :, 0, 0]
    with torch.no_grad():
        logits = model(points)
    ahead = logits.gather(1, wanted[:, None])[:, 0] - logits.gather(1, others[:, None])[:, 0]
    return ahead + EPSILON * (weights[wanted] - weights[others]).abs().sum(-1)


def test_two_classes_pgd_succeeds_on_every_pixel_that_is_not_robust() -> None:
    model, clean = linear(2), images()
    labels = model(clean).argmax(1)
    result = PGD(steps=20).run(model, clean, labels, Ball("Linf", EPSILON))
    can = margins(model, clean, 1 - labels, labels) > 0
    assert 0.1 < can.float().mean() < 0.9
    torch.testing.assert_close(model(result.adversarials).argmax(1) != labels, can)
    torch.testing.assert_close(result.successful, can.flatten(1).all(1))
    assert not result.successful.any() and (result.distances <= EPSILON + 1e-6).all()
    assert (result.queries == 22).all() and (result.gradients == 20).all()


def test_a_step_of_fgsm_is_the_optimum_for_two_classes() -> None:
    model, clean = linear(2), images()
    labels = model(clean).argmax(1)
    result = FGSM().run(model, clean, labels, Ball("Linf", EPSILON))
    torch.testing.assert_close(
        model(result.adversarials).argmax(1) != labels, margins(model, clean, 1 - labels, labels) > 0
    )


def test_targeted_at_a_class_it_leads_there_wherever_every_other_class_can_be_overtaken() -> None:
    model, clean = linear(), images()
    labels, target = model(clean).argmax(1), torch.full((4, 6, 6), 2)
    result = PGD(steps=50, loss="margin").run(model, clean, labels, Ball("Linf", EPSILON), targets=target)
    reached = model(result.adversarials).argmax(1) == 2
    possible = torch.stack([margins(model, clean, target, torch.full_like(target, other)) for other in (0, 1)]).amin(0)
    assert not (reached & (possible < 0)).any()
    assert reached.sum() > 0.9 * (possible > 0).sum() and (possible > 0).sum() > 1.4 * (labels == 2).sum()


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_pixels_that_do_not_count_are_left_alone(norm: Norm, loss: str) -> None:
    """Where each pixel has a logit of its own, its gradient is nothing unless it counts."""
    model, clean = linear(4), images()
    labels = model(clean).argmax(1)
    labels[:, :, 3:] = IGNORED
    attack = PGD.model_validate({"steps": 4, "random_start": False, "loss": loss})
    result = attack.run(model, clean, labels, Ball(norm, {"Linf": 0.02, "L2": 0.3, "L1": 1.0}[norm]))
    difference = (result.adversarials - clean).abs()
    assert difference[..., 3:].max() < 1e-6 < 1e-3 < difference[..., :3].max()  # projections round


def test_a_map_is_a_success_when_all_of_its_pixels_are_and_then_costs_nothing_more() -> None:
    model, clean = linear(2), images()
    labels = model(clean).argmax(1)
    weakest = margins(model, clean, 1 - labels, labels).flatten(1).argmax(1)
    labels = labels.flatten(1).where(torch.arange(36) == weakest[:, None], IGNORED).view(4, 6, 6)
    labels[0] = model(clean[:1]).argmax(1)[0]  # the first one is asked for all of its pixels
    result = PGD(steps=20, random_start=False).run(model, clean, labels, Ball("Linf", EPSILON))
    assert result.successful.tolist() == [False, True, True, True]
    assert result.gradients[0] == 20 and (result.gradients[1:] < 20).all()


def test_of_several_starts_the_best_is_kept() -> None:
    """A step too long throws the pixels about: the last start is rarely the best."""
    model, clean = linear(), images()
    labels = model(clean).argmax(1)

    def wrong(restarts: int) -> Tensor:
        attack = PGD(steps=1, step_size=0.3, restarts=restarts)
        points = attack.run(model, clean, labels, Ball("Linf", EPSILON)).adversarials
        return (model(points).argmax(1) != labels).flatten(1).sum(1)

    counts = torch.stack([wrong(restarts) for restarts in (1, 2, 4, 8)])
    assert (counts.diff(dim=0) >= 0).all() and (counts[-1] > counts[0]).any()


@pytest.mark.parametrize("kind", sorted(set(ATTACKS) - {"fgsm", "pgd"}))
def test_other_attacks_say_that_they_take_no_maps(kind: str) -> None:
    attack, norm = ATTACKS[kind](), ATTACKS[kind].norms[0]  # type: ignore[call-arg]
    ball = Ball(norm, 1 if norm == "L0" else EPSILON)
    with pytest.raises(InputError, match=f"{kind} attacks classifiers alone, but fgsm and pgd"):
        attack.run(linear(), images(), torch.zeros(4, 6, 6, dtype=torch.int64), ball)


@pytest.mark.parametrize(
    ("labels", "targets", "sentence"),
    [
        (torch.zeros(4, 5, 6).long(), None, "labels must be of shape (4, 6, 6), as the images; it is (4, 5, 6)"),
        (
            torch.zeros(4, 6, 6).long(),
            torch.zeros(4).long(),
            "targets must be of shape (4, 6, 6), as the images; it is (4,)",
        ),
        (torch.zeros(4, 6, 6), None, "labels must be int64; they are float32"),
        (torch.full((4, 6, 6), -1), None, "a pixel of images[0] must count"),
        (torch.zeros(4, 6, 6).long(), torch.full((4, 6, 6), -1), "a pixel of images[0] must count"),
        (torch.full((4, 6, 6), 3), None, "labels[0, 0, 0] must be at most 2, the last class"),
        (
            torch.zeros(4).long(),
            None,
            "must return logits (4, classes) of at least 2 classes; their shape is (4, 3, 6, 6)",
        ),
    ],
)
def test_maps_that_make_no_sense_get_a_sentence(labels: Tensor, targets: Tensor | None, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        PGD(steps=1).run(linear(), images(), labels, Ball("Linf", EPSILON), targets=targets)
    assert sentence in str(raised.value)


def test_a_classifier_gives_no_map() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 3)).eval()
    with pytest.raises(InputError, match=r"must return logits \(4, classes, 6, 6\) of at least 2 classes"):
        PGD(steps=1).run(model, images(), torch.zeros(4, 6, 6).long(), Ball("Linf", EPSILON))
