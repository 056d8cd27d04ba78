"""Networks: the published parameter counts, weight sharing, and recall."""

import pytest
import torch
from torch import nn

from jobs.deep_thinking.networks import ARCHITECTURES, network
from service.errors import InputError


# parameter counts of the released code, instantiated: (channels, width) -> DT, DT recall, FF 30, FF recall 30
@pytest.mark.parametrize(
    ("dimensions", "channels", "width", "counts"),
    [
        (1, 1, 400, (2_642_400, 3_123_600, 58_322_400, 58_803_600)),
        (2, 3, 128, (632_592, 783_504, 17_737_488, 17_888_400)),
        (2, 12, 512, (9_642_384, 12_056_976, 283_320_720, 285_735_312)),
    ],
)
def test_parameter_counts(dimensions: int, channels: int, width: int, counts: tuple[int, ...]) -> None:
    with torch.device("meta"):
        found = tuple(
            sum(
                each.numel()
                for each in network(f"{kind}_{dimensions}d", channels=channels, width=width, recall=recall).parameters()
            )
            for kind in ("dt_net", "feed_forward")
            for recall in (False, True)
        )
    assert found == counts


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("recall", [False, True])
@pytest.mark.parametrize("group_norm", [False, True])
def test_thinking_in_two_pieces_is_thinking_in_one(name: str, recall: bool, group_norm: bool) -> None:
    torch.manual_seed(0)
    built = network(name, channels=2, width=8, recall=recall, group_norm=group_norm)
    inputs = torch.randn(3, 2, *([7] if name.endswith("1d") else [7, 5]))
    whole, features = built(inputs, 6)
    _, half = built(inputs, 2)
    rest, after = built(inputs, 4, half, 2)
    assert whole.shape == (3, 2, *inputs.shape[2:])
    assert torch.equal(whole, rest) and torch.equal(features, after)


@pytest.mark.parametrize("name", ["dt_net_1d", "dt_net_2d"])
def test_the_step_written_out(name: str) -> None:
    """One iteration equals the layers of the paper applied by hand: 1-D convolutions for strings."""
    torch.manual_seed(0)
    built = network(name, channels=1, width=4, recall=True)
    string = name.endswith("1d")
    weights = {key: weight.squeeze(2) if string else weight for key, weight in built.state_dict().items()}
    convolve = nn.functional.conv1d if string else nn.functional.conv2d
    inputs = torch.randn(2, 1, *([6] if string else [6, 6]))
    features = convolve(inputs, weights["projection.weight"], padding=1).relu()
    after = convolve(torch.cat([features, inputs], 1), weights["recurrent.recall.weight"], padding=1)
    after = after.relu() if string else after
    for block in (0, 1):
        inner = convolve(after, weights[f"recurrent.blocks.{block}.conv1.weight"], padding=1).relu()
        after = (convolve(inner, weights[f"recurrent.blocks.{block}.conv2.weight"], padding=1) + after).relu()
    found = built.step(built.start(inputs), inputs, 0)
    torch.testing.assert_close(found.squeeze(2) if string else found, after)


def test_without_recall_the_input_is_forgotten() -> None:
    torch.manual_seed(0)
    inputs, other = torch.randn(1, 1, 8), torch.randn(1, 1, 8)
    for recall in (False, True):
        built = network("dt_net_1d", channels=1, width=4, recall=recall)
        features = built.start(inputs)
        assert torch.equal(built.step(features, inputs, 0), built.step(features, other, 0)) != recall


def test_feed_forward_iterations_have_weights_of_their_own_and_an_end() -> None:
    built = network("feed_forward_1d", channels=1, width=4, recall=True, max_iterations=3)
    features = built.start(torch.randn(1, 1, 8))
    assert not torch.equal(built.step(features, torch.zeros(1, 1, 8), 0), built.step(features, torch.zeros(1, 1, 8), 1))
    with pytest.raises(InputError, match="iterations must be at most 3, the depth of this network; it is 4"):
        built(torch.randn(1, 1, 8), 4)
    with pytest.raises(InputError, match="iterations must be at most"):
        built(torch.randn(1, 1, 8), 2, features, 2)


def test_bad_widths_and_names() -> None:
    with pytest.raises(InputError, match="width must be at least 2"):
        network("dt_net_1d", channels=1, width=6, group_norm=True)
    with pytest.raises(InputError, match="did you mean 'dt_net_1d'"):
        network("dtnet_1d")
    with pytest.raises(InputError, match="lacks start, step, answer, max_iterations"):
        network("torch.nn:ReLU")
