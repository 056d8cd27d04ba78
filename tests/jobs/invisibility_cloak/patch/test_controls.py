"""Controls: what they keep of a patch, and a patch in the model store."""

import numpy as np
import pytest
import torch

from jobs.invisibility_cloak.patch.controls import colours, look_alike, main_axis, plain, upside_down
from jobs.invisibility_cloak.patch.model import ARCHITECTURES, patch_card, rendering_of, stored
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from service import models
from service.errors import ModelError
from service.store import open_store


def blobs(size: tuple[int, int] = (50, 30)) -> torch.Tensor:
    coarse = torch.rand(1, 3, 8, 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0].clamp(0, 1)


def values(patch: torch.Tensor) -> np.ndarray:
    """Along the axis on which colours of `blobs` differ most."""
    result: np.ndarray = np.tensordot(main_axis(blobs().double().numpy()), patch.double().numpy(), 1)
    return result


def variation(patch: torch.Tensor) -> float:
    pixels = values(patch)
    return float(np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean())


def test_a_look_alike_has_the_palette_and_the_blobs_of_the_patch_elsewhere() -> None:
    patch = blobs()
    made = look_alike(patch, 0)
    assert made.shape == patch.shape and made.dtype == patch.dtype
    pixels = [sorted(map(tuple, each.flatten(1).T.tolist())) for each in (patch, made)]
    assert pixels[0] == pixels[1], "the same pixels, in other places"
    assert variation(made) == pytest.approx(variation(patch), rel=0.5)
    shuffled = patch.flatten(1)[:, torch.randperm(1500)].view_as(patch)
    assert variation(shuffled) > 3 * variation(made)
    correlation = np.corrcoef(values(patch).ravel(), values(made).ravel())[0, 1]
    assert abs(correlation) < 0.5
    assert torch.equal(made, look_alike(patch, 0)) and not torch.equal(made, look_alike(patch, 1))


def test_plain_and_turned() -> None:
    patch = blobs()
    turned = upside_down(patch)
    assert torch.equal(turned[:, 0, 0], patch[:, -1, -1]) and torch.equal(upside_down(turned), patch)
    red = plain((1.0, 0.0, 0.25), (4, 3))
    assert red.shape == (3, 4, 3) and red[:, 2, 1].tolist() == [1.0, 0.0, 0.25]
    assert len(colours(3)) == 27 and colours(2)[-1] == (1.0, 1.0, 1.0)


def test_a_patch_is_a_model_of_the_store(tmp_path: object) -> None:
    store, patch = open_store(str(tmp_path)), blobs()
    card = patch_card(patch, "person", ["yolo", "other"], RenderingParams(scale=0.3), {"recall_yolo": 0.2})
    models.publish(store, "cloak", dict(stored(patch).state_dict()), card)
    found = models.find(store, "cloak")
    assert torch.equal(models.load(store, found)(), patch)
    assert found.task == "patch" and rendering_of(found) == RenderingParams(scale=0.3)
    with pytest.raises(ModelError, match="its rendering is damaged"):
        rendering_of(found.model_copy(update={"settings": {"rendering": {"scale": -1}}}))
    assert ARCHITECTURES.keys() == {"patch"}


@pytest.mark.parametrize(
    "arguments", [{"height": 10**9, "width": 5}, {"height": 0, "width": 5}, {"height": "a", "width": 1}]
)
def test_a_card_with_impossible_sides_is_refused(tmp_path: object, arguments: dict[str, object]) -> None:
    store, patch = open_store(str(tmp_path)), blobs((4, 4))
    card = patch_card(patch, "person", ["yolo"], RenderingParams(), {}).model_copy(update={"arguments": arguments})
    models.publish(store, "cloak", dict(stored(patch).state_dict()), card)
    with pytest.raises(ModelError, match="must be a whole number from 1 to 4,096"):
        models.load(store, models.find(store, "cloak"))
