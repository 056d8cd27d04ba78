"""How fast an image is segmented, on one core: SUNet-64 at an output stride of 16, for an image of 512x512.

In turn, so that ratios hold on a loaded machine: the network as it is trained, and made ready, as a whole set is
evaluated and an endpoint answers (batch norms folded, convolutions fused, channels last); torchvision's ResNet-50,
which classifies, and DeepLabV3 with a MobileNet; and the bound: the convolutions of SUNet-64 alone, with nothing
between them.
"""

import copy
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from jobs.common.models.classifiers import classifier
from jobs.common.models.inference import for_inference
from jobs.stacked_unets.networks import segmenter
from jobs.stacked_unets.prediction import prepared

SIDE = 512
ROUNDS = 5


def convolutions_alone(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """Every convolution of a pass, transposed ones as well, in the layout that is the faster one, and nothing else."""
    calls: list[tuple[nn.Module, tuple[object, ...], dict[str, object]]] = []
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, inputs, options: calls.append((layer, inputs, options)), with_kwargs=True
        )
        for layer in layers
    ]
    network(images.contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()

    def run() -> None:
        for layer, inputs, options in calls:
            layer(*inputs, **options)

    return run


def seconds(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Processor time of each, the best of ROUNDS, the ways in turn."""
    best = dict.fromkeys(ways, float("inf"))
    for act in ways.values():
        act()
    for _ in range(ROUNDS):
        for name, act in ways.items():
            began = time.process_time()
            act()
            best[name] = min(best[name], time.process_time() - began)
    return best


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        sunet = segmenter("sunet64", classes=21, output_stride=16).eval()
        rivals = {
            "ResNet-50 (classifies)": classifier("resnet50").eval(),
            "DeepLabV3-MobileNetV3": segmenter("deeplabv3_mobilenet_v3_large", classes=21).eval(),
        }
        ready = prepared(sunet)
        bound = "convolutions of SUNet-64 alone"
        ways: dict[str, Callable[[], object]] = {
            "SUNet-64": lambda: sunet(images),
            "SUNet-64, made ready": lambda: ready(images),
            bound: convolutions_alone(sunet, images),
        }
        for name, rival in rivals.items():
            network = for_inference(rival, images)
            ways[f"{name}, made ready"] = partial(network, images)
        found = seconds(ways)
        made = not torch.equal(ready(images), sunet(images))
    for name, took in found.items():
        print(f"{name}: {1000 * took:,.0f} ms an image, {found[bound] / took:.2f} of the bound")
    print("made ready" if made else "SUNet-64 could not be made ready")


if __name__ == "__main__":
    main()
