"""The check of a GPU, small and on the CPU: what it needs, what it writes, and what it does not let pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu import hot_paths, memory, studies
from tests.gpu.__main__ import main
from tests.gpu.bounds import Alone
from tests.gpu.page import page
from tests.gpu.studies import Comparison, Variant
from tests.gpu.wheels import PRESENT, WITH_DEPENDENCIES, WITHOUT

ROOT = Path(__file__).parents[2]
# as on a machine that has nothing beside torch and the wheels: other packages that are installed here are not found
ALONE = """
import re, sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def plain(name): return re.split(r"[^A-Za-z0-9._-]", name, maxsplit=1)[0].lower().replace("_", "-")
known, open_ = set(), [plain(name) for name in sys.argv[1].split()]
alone = [plain(name) for name in sys.argv[2].split()]
while open_:
    known.add(name := open_.pop())
    try: needed = [plain(each) for each in requires(name) or [] if "extra ==" not in each]
    except PackageNotFoundError: needed = []
    open_ += [each for each in needed if each not in known]
known |= {*alone, "setuptools", "six", "assay"}
absent = {top for top, names in packages_distributions().items() if not known & {plain(name) for name in names}}

class Found(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path = [Found if each is PathFinder else each for each in sys.meta_path]
assert "ray" in absent
import importlib, pkgutil
from tests.gpu.__main__ import main
for job in ("copyright_attack", "deep_thinking", "free_training", "generalization", "inevitability", "loss_landscape",
            "invisibility_cloak", "poison_frogs", "robustness_evaluation", "sonification", "stacked_unets"):
    importlib.import_module(f"jobs.{job}.job")
sys.exit(main([sys.argv[3], "--dry", "--serial", "--only", "free_training", "PGD"]))
"""


def test_it_runs_with_torch_and_the_wheels_alone(tmp_path: Path) -> None:
    asked = [" ".join((*PRESENT, *WITH_DEPENDENCIES)), " ".join(WITHOUT), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ASSAY_DATA": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE, *asked], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    (study,), (path,) = found["studies"], found["hot_paths"]
    assert study["study"] == "free_training" and study["same_resumed"] is True and study["numbers"] > 10
    assert path["name"] == "PGD" and min(path[each] for each in ("ours", "bound", "plain")) > 0
    assert [each["passed"] for each in found["memory"]] == [True] * 3
    html = (tmp_path / "gpu_check.html").read_text()
    assert "free_training" in html and "of the bound" in html and "http" not in html.replace("http-equiv", "")


def test_a_difference_is_not_let_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Comparison("free_training", numbers=3, same_resumed=False, different=("row 1, train_loss",))
    monkeypatch.setattr(studies, "compared", lambda *_: wrong)
    monkeypatch.setattr(hot_paths, "all_paths", lambda machine: iter(()))
    monkeypatch.setattr(memory, "all_findings", lambda *_: [])
    assert main([str(tmp_path), "--dry", "--serial", "--only", "free_training"]) == 1
    assert "row 1, train_loss" in (tmp_path / "gpu_check.html").read_text()


def test_numbers_are_compared_in_units_of_what_is_tolerated() -> None:
    result = Comparison("some", Variant(absolute=0.02, relative=0.02))
    reference = {"a": 1.0, "b": 0.0, "c": float("nan"), "d": "text"}
    studies._measure(result, {**reference, "a": 1.02, "b": 0.03}, reference)
    assert result.worst == pytest.approx(1.5) and result.worst_number.startswith("b:") and not result.passed
    studies._measure(result, {**reference, "a": 1.03}, reference)
    assert result.worst == pytest.approx(0.03 / 0.04) and result.passed
    studies._measure(result, {**reference, "a": float("nan")}, reference)
    assert not result.passed
    nan = float("nan")
    assert studies._different({"a": nan, "b": 1.0}, {"a": nan, "b": 1.0 + 1e-16, "c": 2}) == ["c"]


def test_the_bound_computes_each_layer_once_a_pass() -> None:
    shared = torch.nn.Linear(5, 5)
    network = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.Flatten(), torch.nn.Linear(12, 5), shared, shared)
    alone = Alone(network, torch.rand(4, 2, 6), torch.float32, "all")
    assert [tuple(given.shape) for _, given, _ in alone.calls] == [(4, 2, 6), (4, 12), (4, 5), (4, 5)]
    assert [given.requires_grad for _, given, _ in alone.calls] == [False, True, True, True], "images have no gradient"
    alone()


def test_the_page_says_what_is_wrong_without_being_fooled_by_markup() -> None:
    study = {**vars(Comparison("<b>", problem="<script>")), "passed": False}
    html = page(
        {"machine": {"card": "none"}, "seconds": 1.0, "command": "", "studies": [study], "hot_paths": [], "memory": []},
        False,
    )
    assert "&lt;script&gt;" in html and "<script>" not in html and "not passed" in html


@pytest.mark.parametrize("how", [["--serial"], pytest.param([], marks=pytest.mark.slow)])
def test_all_of_it_passes_on_the_cpu(tmp_path: Path, how: list[str]) -> None:
    assert main([str(tmp_path), "--dry", *how]) == 0
    found, html = (json.loads((tmp_path / "gpu_check.json").read_text()), (tmp_path / "gpu_check.html").read_text())
    left_out = {each["name"]: each["note"] for each in found["hot_paths"] if each["note"]}
    assert len(left_out) == 4 and all(f"{name}</td>" in html and note in html for name, note in left_out.items())
