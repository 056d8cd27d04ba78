"""Masks over patches: gaps that are closed, what the gradient is, sizes that are no multiple of anything."""

import pytest
import torch
from scipy.ndimage import binary_closing
from torch import Tensor, nn

from jobs.invisibility_cloak.defences.patch_mask import FILL, PatchMask, PatchSegmenter


class Redness(nn.Module):
    """A segmenter that knows: red is a patch."""

    def forward(self, images: Tensor) -> Tensor:
        return 20 * (images[:, :1] - images[:, 1:2] - 0.5)


def test_what_is_taken_for_a_patch_is_grey_and_the_rest_is_left() -> None:
    images = torch.full((1, 3, 10, 10), 0.7)
    images[..., 3:6, 3:6] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    seen = PatchMask(Redness(), 0.5, 0)(images)  # type: ignore[arg-type]
    expected = images.clone()
    expected[..., 3:6, 3:6] = FILL
    assert torch.allclose(seen, expected)


@pytest.mark.parametrize("closing", [1, 2])
def test_gaps_are_closed_as_scipy_closes_them(closing: int) -> None:
    probabilities = torch.rand(1, 1, 30, 30, generator=torch.Generator().manual_seed(0))
    probabilities = (probabilities > 0.8).float()
    mask = PatchMask(Redness(), 0.5, closing).mask(probabilities)  # type: ignore[arg-type]
    side = 2 * closing + 1
    expected = binary_closing(probabilities[0, 0].numpy() > 0, torch.ones(side, side).numpy(), border_value=0)
    inner = (..., slice(closing, -closing), slice(closing, -closing))  # beyond the edge scipy sees no patch
    assert torch.equal(mask[inner], torch.from_numpy(expected).float()[None, None][inner])


def test_the_gradient_knows_that_a_patch_will_be_masked() -> None:
    images = torch.full((1, 3, 4, 4), 0.4)
    images[:, 0, 1, 1] = 0.9 + 1e-3  # just taken for a patch: masked, but less red it would not be
    images.requires_grad_()
    PatchMask(Redness(), 0.5, 0)(images)[0, 2, 1, 1].backward()  # type: ignore[arg-type]
    assert images.grad is not None
    soft = float(torch.sigmoid(Redness()(images.detach()))[0, 0, 1, 1])
    # blue is 0.4 without the mask and 0.5 under it: the more red, the more mask
    assert float(images.grad[0, 0, 1, 1]) == pytest.approx((FILL - 0.4) * 20 * soft * (1 - soft), rel=1e-4)


@pytest.mark.parametrize("size", [(96, 96), (33, 50), (5, 7)])
def test_images_of_any_size_are_segmented(size: tuple[int, int]) -> None:
    assert PatchSegmenter().eval()(torch.rand(2, 3, *size)).shape == (2, 1, *size)
