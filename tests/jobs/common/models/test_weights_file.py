"""Weights of other people: by their names, in their wrappings, and files that are something else."""

from collections.abc import Callable

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from jobs.common.models.classifiers import classifier, from_file
from jobs.common.models.weights_file import CONVERSION, load_weights, released_names
from jobs.deep_thinking import networks as thinkers
from jobs.stacked_unets.networks import segmenter
from service.errors import InputError
from tests.jobs.common.models import released


def small() -> nn.Module:
    """With batch norm, so that there are counters."""
    return stirred(classifier("cifar_resnet", classes=10, channels=1, depth=8, first=4))


def stirred(network: nn.Module) -> nn.Module:
    """The network with all of its weights drawn anew, so that none is what another one is."""
    stream = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            drawn = torch.rand(tensor.shape, generator=stream)
            tensor.copy_(0.1 + drawn if tensor.ndim == 1 else (2 * drawn - 1) / tensor[0].numel() ** 0.5)
    return network.eval()


WRAPPINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda name: name,
    "for several GPUs": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"_orig_mod.module.{name}",
    "within": lambda name: name.replace("network.", "network.module.", 1),
    "a checkpoint": lambda name: f"state_dict.{name}",
    "a part of something": lambda name: f"state_dict.model.module.{name}",
    "without the normalisation": lambda name: name.removeprefix("network."),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_what_others_add_to_names_is_taken_off(wrapping, tmp_path):
    state, file = small().state_dict(), tmp_path / "weights.safetensors"
    safetensors.torch.save_file({WRAPPINGS[wrapping](name): tensor for name, tensor in state.items()}, file)
    network = classifier("cifar_resnet", classes=10, channels=1, depth=8, first=4)
    load_weights(network, file)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_counters_may_lack_and_half_precision_is_widened(tmp_path):
    state, file = small().state_dict(), tmp_path / "weights.safetensors"
    saved = {f"module.{name}": each.bfloat16() for name, each in state.items() if "num_batches" not in name}
    safetensors.torch.save_file(saved, file)
    network = classifier("cifar_resnet", classes=10, channels=1, depth=8, first=4)
    load_weights(network, file)
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == state[name].dtype and torch.allclose(tensor, state[name], rtol=0.01)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state | {"network.0.weight": torch.full((8, 1, 3, 3), torch.nan)}, "not finite"),
        (lambda state: state | {"network.0.weight": torch.zeros(9, 1, 3, 3)}, r"\(9, 1, 3, 3\), not \(8, 1, 3, 3\)"),
        (lambda state: state | {"more": torch.zeros(1)}, "it has 'more' besides"),
        (lambda state: {name: state[name] for name in list(state)[1:]}, "it lacks 'network.0.weight'"),
        (lambda state: {}, "it lacks 'network.0.weight'"),
    ],
)
def test_weights_of_something_else_are_refused(tmp_path, change, sentence):
    network = classifier("digits_net", classes=10, channels=1)
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(change(network.state_dict()), file)
    with pytest.raises(InputError, match=sentence):
        load_weights(network, file)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (POINTER, "a pointer of Git LFS, which stands for the file"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
        (b"\x1f\x8b" + bytes(64), "a gzip archive"),
        (b"", "empty"),
        (b"short", "truncated or damaged"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "truncated or damaged"),
    ],
)
def test_files_are_named_for_what_they_are(content, form, tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"must be safetensors; it is {form}"):
        load_weights(small(), file)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_weights(small(), tmp_path / "nothing")


@pytest.mark.parametrize("nested", [None, "state_dict", "net"])
def test_pickles_are_not_opened_and_the_conversion_that_is_told_works(nested, tmp_path, monkeypatch):
    """Of checkpoints with more in them, of tensors that share memory, and of views."""
    network = small()
    state = dict(nn.DataParallel(network).state_dict())
    wide = torch.rand(10, 16 + 4)
    state["module.network.head.weight"] = wide[:, :16]
    network.network.head.weight.data.copy_(wide[:, :16])
    torch.save({nested: state, "epoch": 3, "acc": 0.5} if nested else state, tmp_path / "old.pt")
    loaded = classifier("cifar_resnet", classes=10, channels=1, depth=8, first=4)
    with pytest.raises(InputError, match="it is a pickled checkpoint") as refused:
        load_weights(loaded, tmp_path / "old.pt")
    assert CONVERSION in refused.value.hint and '"' not in CONVERSION
    monkeypatch.chdir(tmp_path)
    exec(CONVERSION, {})
    load_weights(loaded, tmp_path / "new.safetensors")
    assert all(torch.equal(each, network.state_dict()[name]) for name, each in loaded.state_dict().items())


# ---- weights that were released with the papers ----------------------------------------------------------------------


def by_released_names(network: nn.Module) -> dict[str, Tensor]:
    state = stirred(network).state_dict()
    return {theirs: state[ours] for theirs, ours in released_names(network).items()}


@pytest.mark.parametrize("shortcuts", [True, False])
def test_the_resnets_of_li_et_al(shortcuts, tmp_path):
    options = {"classes": 10, "channels": 3, "depth": 14, "shortcuts": shortcuts}
    state = by_released_names(classifier("cifar_resnet", **options))
    assert {"conv1.weight", "bn1.running_var", "layer2.0.conv1.weight", "linear.bias"} <= state.keys()
    assert ("layer3.0.shortcut.1.bias" in state) == shortcuts
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({f"module.{name}": tensor for name, tensor in state.items()}, file)
    images = torch.rand(2, 3, 16, 16)
    expected = released.resnet(state, images, blocks=2, shortcuts=shortcuts)
    with torch.no_grad():
        logits = from_file(str(file), "cifar_resnet", **options).eval()(images)
    assert logits.isfinite().all() and logits.std() > 0
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["cifar_resnet50", "vgg9", "densenet121"])
def test_other_networks_of_li_et_al_have_released_names(name):
    """Each once, and layers of one name's kind only: what is normalised has statistics."""
    network = classifier(name, classes=10, channels=3)
    names = released_names(network)
    assert sorted(names.values()) == sorted(network.state_dict())
    kinds = {layer: part for layer, part in network.named_modules()}
    for theirs, ours in names.items():
        layer, own = theirs.split(".")[-2], kinds[ours.rpartition(".")[0]]
        if layer.startswith(("conv", "bn", "linear", "classifier")):
            expected = {"conv": nn.Conv2d, "bn": nn.BatchNorm2d, "linear": nn.Linear, "classifier": nn.Linear}
            assert isinstance(own, expected[layer.rstrip("0123456789")]), theirs


@pytest.mark.parametrize(("recall", "dimensions"), [(True, 1), (False, 1), (True, 2), (False, 2)])
def test_the_networks_of_bansal_et_al(recall, dimensions, tmp_path):
    channels = 1 if dimensions == 1 else 3
    options = {"channels": channels, "width": 8, "recall": recall}
    state = by_released_names(thinkers.network(f"dt_net_{dimensions}d", **options))
    if dimensions == 1:
        state = {name: tensor.squeeze(2) for name, tensor in state.items()}
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    network = thinkers.network(f"dt_net_{dimensions}d", **options)
    load_weights(network, file)
    inputs = torch.rand(2, channels, *[6] * dimensions)
    with torch.no_grad():
        logits, _ = network(inputs, 3)
    assert logits.isfinite().all() and logits.std() > 0
    torch.testing.assert_close(logits, released.thinking(state, inputs, 3, recall), rtol=1e-4, atol=1e-5)


def test_feed_forward_networks_of_bansal_et_al_have_released_names():
    names = released_names(thinkers.network("feed_forward_2d", channels=3, width=8, max_iterations=2))
    assert names["feedforward_layers.1.0.0.conv2.weight"] == "groups.1.0.conv2.weight"
    assert names["recall_layer.weight"] == "recall_layer.weight"


def test_stacked_unets_of_shah_et_al(tmp_path):
    state = by_released_names(classifier("sunet_tiny", classes=5))
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({f"module.{name}": tensor.contiguous() for name, tensor in state.items()}, file)
    network = from_file(str(file), "sunet_tiny", classes=5).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        logits = network(images)
    expected = released.stacked_unets(state, network.normalise(images), (1, 2, 2, 1), 1)
    assert logits.isfinite().all() and logits.std() > 0
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    names = released_names(segmenter("sunet_tiny", classes=5, head="degridding"))
    assert names["final.4.running_mean"] == "network.head.4.running_mean"


def test_odd_sides_are_pooled_down_where_that_is_asked_for():
    """As the released code does: the last row and column count for nothing."""
    odd, even = torch.rand(1, 3, 68, 68), torch.rand(1, 3, 64, 64)
    up, down = (stirred(classifier("sunet_tiny", classes=5, pooling=pooling)) for pooling in ("up", "down"))
    sides = []
    for network in (up, down):
        network.network.backbone.norm.register_forward_hook(lambda _, inputs, __: sides.append(inputs[0].shape[-1]))
    with torch.no_grad():
        assert torch.equal(up(even), down(even)) and not torch.equal(up(odd), down(odd))
    assert sides == [4, 4, 5, 4]
    with pytest.raises(InputError, match="pooling must be up or down; it is 'floor'"):
        classifier("sunet_tiny", pooling="floor")
