"""Where results come from: seeds, code, packages, hardware."""

import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("assay", "ray", "torch", "torchvision", "torchaudio", "numpy", "pyarrow", "safetensors")


def derive_seed(seed: int, *key: str | int) -> int:
    """A seed in [0, 2^63) from a run's seed and a key of words and whole numbers.

    SHA-256 of the JSON list [seed, *key]: JSON keeps words and numbers apart, so no two keys are written alike.
    """
    text = json.dumps([seed, *key], ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def provenance() -> dict[str, Any]:
    """All that tells later how results came about. Never fails: what cannot be found is None."""
    import torch  # not above: commands that only ask a cluster do without its seconds

    return {
        "command": sys.argv,
        "code": _git(Path(__file__).parent),
        "working_directory": _git(Path.cwd()),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that a folder is in, and a fingerprint of what is not committed."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        commit, difference = git("rev-parse", "HEAD"), git("status", "--porcelain") and git("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "uncommitted": hashlib.sha256(difference.encode()).hexdigest() if difference else None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
