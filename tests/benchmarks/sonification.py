"""How fast sounds are optimised, by one thread and by two: many features at a time, one, and a plain loop.

One recogniser, untrained, with the shape of that of the small spec, sounds of half a second, of 0.7 (a spoken digit)
and of a second at 16 kHz, the same steps, transformations, high-pass and loudness for all. The plain loop goes as
Lucent, the port of Lucid to torch, optimises images: one feature at a time, the whole network in every step,
activations caught by a hook, the objective their mean, the random changes as torch's own functions. In turn, the best
of ROUNDS by the clock, since two threads are of use to a batch more than to one sound.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchaudio.functional import highpass_biquad, resample

from jobs.common.audio.levels import RMS
from jobs.common.audio.mel import LogMel
from jobs.common.audio.networks.recogniser import Recogniser
from jobs.sonification.optimisation.ascent import AscentParams, Subject, ascend
from jobs.sonification.optimisation.edges import inside
from jobs.sonification.optimisation.objectives import ChannelObjective
from jobs.sonification.optimisation.parameterisations import SoundFormat

RATE, LENGTHS = 16_000, (0.5, 0.7, 1.0)
STEPS = 10
TOGETHER = 32
THREADS = (1, 2)
ROUNDS = 3
LAYERS = ("conv1", "conv3", "conv5")


def plain_loop(network: Recogniser, layer: str, channel: int, samples: int) -> Tensor:
    """One feature by a loop as it comes to mind. Returns the sound (1, samples)."""
    stream = torch.Generator().manual_seed(channel)
    sound = (RMS * torch.randn(1, samples, generator=stream)).requires_grad_()
    optimizer = torch.optim.Adam([sound], 1e-2)
    caught: list[Tensor] = []
    hook = network.stages[layer].register_forward_hook(lambda module, inputs, output: caught.append(output))
    for _ in range(STEPS):
        optimizer.zero_grad()
        caught.clear()
        passed = highpass_biquad(sound, RATE, 50.0)
        passed = RMS * passed / passed.std()
        rate = int(torch.randint(98, 103, (1,), generator=stream))
        changed = resample(passed, rate, 100)
        changed = changed.roll(int(torch.randint(-400, 401, (1,), generator=stream)), 1)
        changed = changed * (0.8 + 0.4 * torch.rand(1, generator=stream))
        network(changed + 1e-3 * torch.randn(changed.shape, generator=stream))
        (-caught[0][:, channel].mean()).backward()
        optimizer.step()
    hook.remove()
    return sound.detach()


def seconds_of(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def main() -> None:
    torch.manual_seed(0)
    network = Recogniser([str(digit) for digit in range(10)]).eval().requires_grad_(False)
    for threads in THREADS:
        torch.set_num_threads(threads)
        for seconds in LENGTHS:
            for layer in LAYERS:
                compare(network, layer, round(seconds * RATE))


def compare(network: Recogniser, layer: str, samples: int) -> None:
    """Print the rates of the three ways at one layer, for sounds of so many samples, with torch's threads of now."""
    mel = network.stages["mel"]
    assert isinstance(mel, LogMel)
    sound_format, params = SoundFormat(RATE, samples, 50.0, mel, torch.full((64,), -5.0)), AscentParams(steps=STEPS)
    with torch.no_grad():
        count = network.activations(torch.zeros(1, samples), [layer])[layer].shape[1]
    subject = Subject(network, layer, torch.zeros(count), torch.ones(count), inside(network, layer, samples))

    def features(numbers: list[int]) -> None:
        ascend(subject, ChannelObjective(), numbers, numbers, sound_format, params)

    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "the plain loop": (4, lambda: [plain_loop(network, layer, each, samples) for each in range(4)]),
        "one at a time": (4, lambda: [features([each]) for each in range(4)]),
        f"{TOGETHER} at a time": (TOGETHER, lambda: features(list(range(TOGETHER)))),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, (made, act) in ways.items():
            best[name] = min(best[name], seconds_of(act) / made)
    steps: int = AscentParams.model_fields["steps"].default
    for name, each in best.items():
        print(
            f"{torch.get_num_threads()} threads, {samples / RATE:g} s, {layer}, {name}:",
            f"{STEPS / each / steps:.3f} features/s of {steps} steps,",
            f"{samples / RATE * STEPS / each:.0f} seconds of sound through a step in a second,",
            f"{best['one at a time'] / each:.2f} of one at a time,",
            f"{best['the plain loop'] / each:.2f} of the plain loop",
        )


if __name__ == "__main__":
    main()
