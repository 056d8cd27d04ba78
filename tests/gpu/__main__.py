"""`python -m tests.gpu OUT [--dry] [--serial] [--only NAME …]`: check a GPU.

OUT gets gpu_check.json and gpu_check.html. It ends with status 1 if results are not equal, or something could not be
computed. Goals of speed are shown, and never asserted.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault(
    "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
)  # before CUDA begins: what makes matrix products the same twice

from tests.gpu import hot_paths, memory, studies
from tests.gpu.bounds import limits
from tests.gpu.machine import Machine
from tests.gpu.page import page

SECONDS = 450.0
"""after which nothing more is begun"""
FOR_STUDIES = 240.0
"""of these, so that speed is measured as well"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description="Check a GPU.")
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--dry", action="store_true", help="everything small, on the CPU")
    parser.add_argument("--serial", action="store_true", help="without Ray, which may be absent")
    parser.add_argument("--only", nargs="+", help="names of studies and of hot paths; default: all")
    asked = parser.parse_args(arguments)
    machine = Machine.found(asked.dry)
    asked.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def left(until: float) -> float:
        return until - (time.monotonic() - began)

    chosen = [name for name in studies.STUDIES if asked.only is None or name in asked.only]
    compared = studies.all_compared(machine, chosen, lambda: left(FOR_STUDIES))
    findings = memory.all_findings(machine, asked.out / "stores", asked.serial)
    measured = hot_paths.measured(machine, lambda: left(SECONDS), asked.only)
    passed = all(each.passed for each in (*compared, *findings)) and not any(each.problem for each in measured)
    found = {
        "passed": passed,
        "machine": {**machine.describe(), **limits(machine)},
        "command": " ".join(["python -m tests.gpu", *(sys.argv[1:] if arguments is None else arguments)]),
        "seconds": time.monotonic() - began,
        "studies": [{**asdict(each), "passed": each.passed} for each in compared],
        "hot_paths": [{**asdict(each), "of_bound": each.of_bound, "of_plain": each.of_plain} for each in measured],
        "memory": [asdict(each) for each in findings],
    }
    (asked.out / "gpu_check.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (asked.out / "gpu_check.html").write_text(page(found, passed), encoding="utf-8")
    print(f"{'passed' if passed else 'not passed'} after {found['seconds']:.0f} s: {asked.out / 'gpu_check.html'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
