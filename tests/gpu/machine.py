"""The machine that is checked, and its clock."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Machine:
    """Where it is computed. dry: everything small, and the CPU in the place of a GPU."""

    device: torch.device
    dry: bool

    @classmethod
    def found(cls, dry: bool) -> "Machine":
        """RuntimeError if there is no GPU to check."""
        if dry:
            return cls(torch.device("cpu"), dry)
        if not torch.cuda.is_available():
            raise RuntimeError(
                f"torch {torch.__version__} can use no GPU here; --dry checks everything small on the CPU"
            )
        return cls(torch.device("cuda", 0), dry)

    @property
    def gpus(self) -> float:
        """What a spec reserves."""
        return 0.0 if self.dry else 1.0

    @property
    def half(self) -> torch.dtype:
        """The lower precision that is checked: on a CPU there is none that is worth it."""
        return torch.float32 if self.dry else torch.bfloat16

    def describe(self) -> dict[str, str]:
        card = "none, a dry run" if self.dry else torch.cuda.get_device_name(self.device)
        return {
            "card": card,
            "torch": torch.__version__,
            "CUDA": str(torch.version.cuda),
            "cuDNN": str(torch.backends.cudnn.version()),
            "Python": platform.python_version(),
        }

    def wait(self) -> None:
        if not self.dry:
            torch.cuda.synchronize(self.device)

    def seconds(self, ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
        """Of each, the best of so many rounds, the ways in turn; but for a dry run each is called twice before that."""
        best = dict.fromkeys(ways, float("inf"))
        for round_ in range(0 if self.dry else -2, rounds):
            for name, act in ways.items():
                self.wait()
                began = time.perf_counter()
                act()
                self.wait()
                if round_ >= 0:
                    best[name] = min(best[name], time.perf_counter() - began)
        return best
