"""Training of the segmenter: what it learns from, that it learns, that the same seed is the same network."""

from typing import Any

import torch

from jobs.common.data.boxes.scenes import scenes
from jobs.common.detection.boxes import Boxes
from jobs.common.training.optimizers import OptimizerParams
from jobs.invisibility_cloak.defences.params import MaskingParams
from jobs.invisibility_cloak.defences.patch_mask import PatchSegmenter
from jobs.invisibility_cloak.defences.textures import texture
from jobs.invisibility_cloak.defences.training import PatchedImages, covered_by, made_up, trained
from jobs.invisibility_cloak.patch.rendering import render
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.targets import targets_of

SCENES = scenes("train", 64, 40)
PLACES = torch.arange(40)
RENDERING = RenderingParams(scale=0.3, median=1)


def batches(patches: list[torch.Tensor]) -> PatchedImages:
    return PatchedImages(SCENES, PLACES, "person", RENDERING, patches, 16, lambda index: 7 + abs(index))


def test_the_mask_is_where_the_images_have_changed() -> None:
    patched, masks = batches([torch.rand(3, 25, 15)]).batch(0)
    assert (
        patched.shape == (16, 3, 64, 64) and masks.shape == (16, 1, 64, 64) and set(masks.unique().tolist()) == {0, 1}
    )
    assert not masks[:4].any() and (masks[4:].mean((1, 2, 3)) > 0.005).all()
    plain = {SCENES.images(torch.tensor([place])).numpy().tobytes(): place for place in range(40)}
    assert all(image[None].numpy().tobytes() in plain for image in patched[:4])
    assert not any(image[None].numpy().tobytes() in plain for image in patched[4:])


def test_a_mask_lies_as_the_patch_does() -> None:
    images = torch.zeros(1, 3, 80, 80)
    boxes = [Boxes(torch.tensor([[10.0, 5.0, 50.0, 75.0]]), torch.tensor([0]))]
    targets = targets_of(boxes, 0, (80, 80))
    patch = torch.ones(3, 25, 15)
    drawn = render(patch, images, targets, RENDERING, torch.Generator().manual_seed(5))
    mask = covered_by(patch, images, targets, RENDERING, 5)
    inside = mask[0, 0] > 0.999
    level = drawn[0, 0][inside]
    assert inside.sum() > 100 and float(level.std()) < 1e-3  # of one colour, whatever the contrast
    assert torch.allclose(drawn[0, 0], mask[0, 0] * level.mean(), atol=2e-3)


def test_made_up_boxes_are_partly_inside() -> None:
    corners = made_up(500, 60, 90, 3, torch.Generator().manual_seed(0)).corners
    assert (corners[:, 2:] > 0).all() and (corners[:, 0] < 90).all() and (corners[:, 1] < 60).all()
    assert len(made_up(0, 60, 90, 3, torch.Generator())) == 1


def test_textures_are_of_many_kinds_and_within_bounds() -> None:
    every = torch.stack([texture((30, 20), torch.Generator().manual_seed(seed)) for seed in range(40)])
    assert every.shape == (40, 3, 30, 20) and float(every.min()) >= 0 and float(every.max()) <= 1
    spread = every.std((1, 2, 3))
    assert float(spread.min()) > 0.03 and float(spread.max()) > 0.25
    rough = (every.diff(dim=3).abs().mean((1, 2, 3)) / spread).sort().values
    assert float(rough[0]) < 0.3 and float(rough[-1]) > 0.9


def learnt(run: Any, updates: int) -> PatchSegmenter:
    optimizer = OptimizerParams(kind="adam", learning_rate=1e-2)
    params = MaskingParams(updates=updates, batch=8, optimizer=optimizer)
    patch = texture((25, 15), torch.Generator().manual_seed(99))
    return trained(run, SCENES, PLACES, "person", RENDERING, [patch], params, "masking_net")


def test_it_learns(make_run: Any) -> None:
    run = make_run()
    learnt(run, 40)
    first, *_, last = run.rows
    assert last["masking_net_train_loss"] < 0.5 * first["masking_net_train_loss"]
    assert last["masking_net_found"] > last["masking_net_false"] + 0.3


def test_the_same_seed_is_the_same_network(make_run: Any) -> None:
    networks = [learnt(make_run(name), 3).state_dict() for name in ("first", "second")]
    for one, other in zip(*(network.values() for network in networks), strict=True):
        assert torch.equal(one, other)
