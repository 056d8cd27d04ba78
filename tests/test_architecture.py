"""Which way imports run: the rules that keep the science free of the service, and the service free of the science."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [file for package in ("service", "jobs", "serving") for file in sorted((ROOT / package).rglob("*.py"))]


def imports(file: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_imports_run_one_way() -> None:
    """The rules of all files in one test, which says the file: a test of each would take longer than it looks."""
    for file in FILES:
        place = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for module in imports(file):
            assert not broken_rule(place, module), f"{file} imports {module}: {broken_rule(place, module)}"


def broken_rule(place: str, module: str) -> str:
    """What is wrong with an import of this module at this place; nothing: ""."""
    if within(place, "service"):
        if within(module, "jobs", "serving"):
            return "the service reaches jobs and serving by name only"
        if within(module, "ray") and not within(place, "service.cluster"):
            return "Ray is imported in service/cluster alone"
    if within(place, "jobs"):
        if within(module, "ray", "serving"):
            return "jobs know neither Ray nor the endpoints"
        faces = ("service.run", "service.errors", "service.models", "service.params")
        if within(module, "service") and not within(module, *faces):
            return "jobs see the handle alone"
        if within(place, "jobs.common"):
            if within(module, "jobs") and not within(module, "jobs.common"):
                return "what is common knows no study"
        elif within(module, "jobs") and not within(module, "jobs.common", ".".join(place.split(".")[:2])):
            return "one study does not import another"
    if within(place, "serving") and within(module, "service"):
        allowed = [
            *("models", "store", "errors", "params", "json_text", "execution.devices"),
            *("cluster.connection", "cluster.embedded", "planning.validation", "planning.yaml_text"),
            "report.spectrogram",
        ]
        if not within(module, *[f"service.{name}" for name in allowed]):
            return "endpoints know nothing of runs"
    return ""


@pytest.mark.parametrize(
    ("place", "module", "allowed"),
    [
        ("service.store", "jobs.common.seeds", False),
        ("service.execution.runner", "ray", False),
        ("service.cluster.sweep", "ray.tune", True),
        ("jobs.inevitability.job", "ray", False),
        ("jobs.inevitability.job", "service.execution.runner", False),
        ("jobs.inevitability.job", "service.run.Run", True),
        ("jobs.common.data.folder", "jobs.inevitability.job", False),
        ("jobs.inevitability.job", "jobs.poison_frogs.job", False),
        ("jobs.inevitability.job", "jobs.inevitability.params", True),
        ("serving.app", "service.execution.runner", False),
        ("serving.app", "service.store.open_store", True),
    ],
)
def test_each_rule_is_kept_and_broken(place: str, module: str, allowed: bool) -> None:
    assert (broken_rule(place, module) == "") == allowed


def test_a_serial_run_loads_no_ray_and_no_trial_the_compiler(tmp_path: Path) -> None:
    """Not even one that draws its trials and stops some of them early. A trial fixes its numerics as a worker does."""
    path = tmp_path / "spec.yaml"
    path.write_text(
        "job: tests.service.walk\n"
        "sweep: {random: {params.drift: {uniform: [0, 1]}}, samples: 2, metric: height,\n"
        "  scheduler: {kind: threshold, metric: height, at_step: 2, at_least: -100}}\n"
    )
    words = ["run", str(path), f"store={tmp_path / 'store'}", "--serial"]
    code = f"""
import sys
from service.cli import main
code = main({words})
import torch
print(code, torch.get_deterministic_debug_mode(), {{"ray", "torch._dynamo", "torch._inductor"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("\n0 1 set()\n"), done.stdout + done.stderr


PATHS = ("runs", "trials", "tune", "cells", "checkpoints", "report.html", "run.json", "trial.json", "spec.yaml")
PATHS += ("manifest.json", "metrics.parquet", "lock.json", "log.jsonl", "tables", "figures", "samples", "sounds")


def test_one_module_owns_the_paths_of_a_run() -> None:
    """Nowhere else is a path put together or taken apart."""
    for file in FILES:
        if file == ROOT / "service" / "execution" / "layout.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
                assert node.right.value not in PATHS, f"{file}:{node.lineno}: {node.right.value!r} belongs to layout.py"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                first = node.args[0]
                text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
                file_call = node.func.attr in ("read", "write", "exists", "delete", "create", "read_json", "write_json")
                folder_call = node.func.attr in ("startswith", "removeprefix")
                if file_call or folder_call or node.func.attr in ("read_table", "write_table"):
                    assert text.split("/")[0] not in PATHS, f"{file}:{node.lineno}: {text!r} belongs to layout.py"


SLOW = ["torchvision", "scipy.stats", "sklearn", "torch._dynamo"]


@pytest.mark.parametrize(
    ("modules", "others"),
    [
        (sorted(f"jobs.{path.parent.name}.job" for path in (ROOT / "jobs").glob("*/job.py")), SLOW),
        (["serving.http.middleware", "serving.grpc.middleware"], [*SLOW, "torch"]),
        (["service.models"], [*SLOW, "torch"]),
    ],
    ids=["studies", "proxies", "models"],
)
def test_processes_load_nothing_that_takes_long_and_is_not_needed(modules: list[str], others: list[str]) -> None:
    """Every command and every worker of Ray imports a study; torchvision, with half of torch, takes a second."""
    lines = f"import sys, {', '.join(modules)}; print(*sorted({set(others)} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout
    assert modules and loaded.split() == []


def test_every_config_opens_with_its_command() -> None:
    """Each spec begins with the command that runs it."""
    for file in sorted((ROOT / "configs").rglob("*.yaml")):
        first = file.read_text().splitlines()[0]
        assert first.startswith("# ") and str(file.relative_to(ROOT)) in first, f"{file}: {first}"


STUDIES = sorted(path.parent for path in (ROOT / "jobs").glob("*/job.py"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_study_has_the_same_shape(study: Path) -> None:
    """Its files, the faces of its job.py, and a small and a paper's spec."""
    for name in ("params.py", "job.py", "estimation.py", "figures.py"):
        assert (study / name).exists(), f"{study.name} has no {name}"
    functions = [
        node.name for node in ast.parse((study / "job.py").read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    assert {"run", "summarize", "estimate"} <= set(functions), study.name
    specs = [path.stem for path in (ROOT / "configs" / study.name).glob("*.yaml")]
    assert any("small" in name for name in specs) and any("paper" in name for name in specs), specs


def test_specs_name_no_private_module() -> None:
    for file in sorted((ROOT / "configs").rglob("*.yaml")):
        assert "jobs." not in "".join(line for line in file.read_text().splitlines() if not line.startswith("#")), file
