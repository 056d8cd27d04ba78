"""`python -m tests.gpu.wheels FOLDER`: what the check needs beside torch and what comes with it, as wheels in a folder.

For a machine without internet, with Python 3.12 on x86-64 and these packages: torch, torchvision, torchaudio, numpy,
scipy, scikit-learn, matplotlib, pyarrow, safetensors. There: `pip install --no-index --no-deps FOLDER/*.whl`.
"""

import subprocess
import sys
from pathlib import Path

PRESENT = (
    "torch",
    "torchvision",
    "torchaudio",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "pyarrow",
    "safetensors",
)
WITH_DEPENDENCIES = ("pydantic>=2.10,<3", "pyyaml>=6", "jinja2>=3.1", "pathspec>=0.12", "plotly>=6", "rich>=13.9")
WITHOUT = (  # what they ask for is there, or is named here
    "soundfile>=0.12",
    "cffi",
    "pycparser",
    "h5py>=3.12",
    "basemap-data>=2,<3",
    "mlxtend>=0.23",
    "psutil>=6",
    "click>=8.1",
    "cloudpickle",
)
MOST = 60 << 20
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_31_x86_64")


def fill(folder: Path) -> int:
    """Download them. Returns their size in bytes. RuntimeError if they are larger than may be carried."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--quiet", "--dest", str(folder), "--only-binary", ":all:", "--python-version", "3.12"]
    for platform in PLATFORMS:
        options += ["--platform", platform]
    for names, more in ((WITH_DEPENDENCIES, []), (WITHOUT, ["--no-deps"])):
        subprocess.run([sys.executable, "-m", "pip", "download", *options, *more, *names], check=True)
    size = sum(file.stat().st_size for file in folder.glob("*.whl"))
    if size > MOST:
        raise RuntimeError(f"the wheels must be at most {MOST >> 20} MiB together; they are {size / 2**20:.1f}")
    return size


if __name__ == "__main__":
    target = Path(sys.argv[1])
    print(f"{fill(target) / 2**20:.1f} MiB of wheels in {target}")
