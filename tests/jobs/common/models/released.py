"""The forward passes of networks that were released with the papers, as functions of their weights by released names.

Written anew for these tests after reading the released code; nothing is shared with the networks of Assay. Images are
in [0, 1] without normalisation, and networks in evaluation mode.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

State = Mapping[str, Tensor]


def convolution(state: State, name: str, features: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    convolve = functional.conv1d if weight.ndim == 3 else functional.conv2d
    return convolve(features, weight, state.get(f"{name}.bias"), stride, weight.shape[-1] // 2)


def norm(state: State, name: str, features: Tensor) -> Tensor:
    statistics = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return functional.batch_norm(features, *statistics, state[f"{name}.weight"], state[f"{name}.bias"])


def active(state: State, norm_name: str, name: str, features: Tensor, stride: int = 1) -> Tensor:
    return convolution(state, name, functional.relu(norm(state, norm_name, features)), stride)


def linear(state: State, name: str, features: Tensor) -> Tensor:
    return functional.linear(features, state[f"{name}.weight"], state[f"{name}.bias"])


def resnet(state: State, images: Tensor, blocks: int, shortcuts: bool) -> Tensor:
    """Li et al. 2018, of basic blocks: logits."""
    features = functional.relu(norm(state, "bn1", convolution(state, "conv1", images)))
    for stage in (1, 2, 3):
        for block in range(blocks):
            place, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            after = functional.relu(norm(state, f"{place}.bn1", convolution(state, f"{place}.conv1", features, stride)))
            after = norm(state, f"{place}.bn2", convolution(state, f"{place}.conv2", after))
            if shortcuts and f"{place}.shortcut.0.weight" in state:
                kept = convolution(state, f"{place}.shortcut.0", features, stride)
                after = after + norm(state, f"{place}.shortcut.1", kept)
            elif shortcuts:
                after = after + features
            features = functional.relu(after)
    return linear(state, "linear", features.mean((2, 3)))


def thinking(state: State, inputs: Tensor, iterations: int, recall: bool) -> Tensor:
    """Bansal et al. 2022: logits after some iterations. inputs: (batch, channels, *space)."""
    features = functional.relu(convolution(state, "projection.0", inputs))
    place = 0
    for _ in range(iterations):
        if recall:
            features = convolution(state, "recur_block.0", torch.cat([features, inputs], 1))
            place = 1
            if inputs.ndim == 3:  # strings have a ReLU there, which is a layer
                features, place = functional.relu(features), 2
        for block in (0, 1):
            after = functional.relu(convolution(state, f"recur_block.{place}.{block}.conv1", features))
            after = convolution(state, f"recur_block.{place}.{block}.conv2", after)
            features = functional.relu(after + features)
    for name in ("head.0", "head.2"):
        features = functional.relu(convolution(state, name, features))
    return convolution(state, "head.4", features)


def stacked_unets(state: State, images: Tensor, modules: tuple[int, ...], stem_stride: int) -> Tensor:
    """Shah et al. 2018, of output stride 32, for sides that can be halved: logits of a classifier."""
    state = {name.removeprefix("features."): tensor for name, tensor in state.items()}
    features = convolution(state, "conv1", images, stem_stride)
    shown = functional.relu(norm(state, "residual1.bn.0", features))
    after = convolution(state, "residual1.conv.0", shown, 2)
    features = active(state, "residual1.conv.2", "residual1.conv.4", after)
    features = features + convolution(state, "residual1.shortcut.0", shown, 2)
    for stage, count in enumerate(modules, 1):
        for index in range(count):
            features = unet(state, f"unet{stage}_{index}", features)
        if stage < len(modules):
            features = functional.avg_pool2d(features, 2)
    return linear(state, "linear", functional.relu(norm(state, "bn2", features)).mean((2, 3)))


def unet(state: State, place: str, features: Tensor) -> Tensor:
    changes = f"{place}.upsample.conv0.weight" in state
    shown = functional.relu(norm(state, f"{place}.bn.bn0" if changes else f"{place}.down.0.bn0", features))
    kept = convolution(state, f"{place}.upsample.conv0", shown) if changes else features
    levels = [0, 1] if f"{place}.down.1.bn1.weight" in state else [0]
    entered = [convolution(state, f"{place}.down.0.conv0", shown)]
    for level in levels:
        down = active(state, f"{place}.down.{level}.bn1", f"{place}.down.{level}.conv1", entered[-1], 2)
        entered.append(active(state, f"{place}.down.{level}.bn2", f"{place}.down.{level}.conv2", down))
    after = entered.pop()
    for level in reversed(levels):
        name = f"{place}.up.{level}"
        weight, bias = state[f"{name}.deconv0.weight"], state[f"{name}.deconv0.bias"]
        wide = functional.relu(norm(state, f"{name}.bn0", after))
        after = functional.conv_transpose2d(wide, weight, bias, 2, 1, output_padding=1)
        after = active(state, f"{name}.bn1", f"{name}.deconv1", after)
        if level:
            after = torch.cat([after, entered[level]], 1)
    return active(state, f"{place}.up.0.bn2", f"{place}.up.0.conv2", after) + kept
