"""The specs of the study: valid as they are, the paper's in miniature, and what the small ones are to show."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from jobs.common.models.classifiers import classifier
from service import spec
from service.execution import runner
from service.execution.runner import Execution
from tests.jobs.specs import finish, results

CONFIGS = Path(__file__).parents[3] / "configs" / "generalization"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_spec_is_valid_without_its_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_DATA", "/nowhere")
    assert spec.load(str(path)).job == ("loss_landscape" if path.stem == "slices_small" else "generalization")


def test_networks_have_as_many_weights_as_the_papers() -> None:
    small = spec.load(str(CONFIGS / "small.yaml")).params.network.classifier
    network = classifier(small.name, classes=2, channels=2, **small.options)
    assert sum(each.numel() for each in network.parameters()) == 3614
    paper = spec.load(str(CONFIGS / "svhn_paper.yaml")).params.network.classifier
    assert sum(each.numel() for each in classifier(paper.name, **paper.options).parameters()) == 269_722
    products = classifier("quadratic_regression", classes=1 + 1, channels=3, side=32, small=16)
    assert sum(each.numel() for each in products.parameters()) == 2 * (298_368 + 1)


def test_a_minibatch_of_svhn_has_256_images_with_and_without_poison() -> None:
    loaded = spec.load(str(CONFIGS / "svhn_paper.yaml"))
    assert loaded.sweep is not None
    for name, overrides in loaded.sweep.variants.items():
        if name.startswith("poison"):
            share, poison = overrides["params.poison.share"], overrides["params.poison.batch"]
            assert overrides["params.network.training.batch"] + poison == 256
            assert poison == int(256 * share), "rounded down, as in the released code"


def test_house_numbers_are_poisoned_out_of_the_extra_ones(tmp_path: Path, store_uri: str) -> None:
    """Made-up files in the published format, and one epoch; the network in full, the numbers of images not."""
    stream = np.random.default_rng(0)
    for name, count in (("train", 24), ("test", 12), ("extra", 40)):
        pixels = stream.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        savemat(tmp_path / f"{name}_32x32.mat", {"X": pixels, "y": stream.integers(1, 11, (count, 1), dtype=np.uint8)})
    short = [
        *(f"params.{data}.root={tmp_path}" for data in ("data", "poison.data")),
        *("params.poison.images=30", "params.poison.share=0.5", "params.network.training.batch=8"),
        *("params.network.training.epochs=1", "sweep=null", "resources={}"),
    ]
    folder = finish(CONFIGS / "svhn_paper.yaml", short, store_uri)
    (row,) = results(folder).values()
    assert 0 <= row["poison_accuracy"] <= 1 and row["fitted"] in (0, 1)
    absent = spec.load(
        str(CONFIGS / "svhn_paper.yaml"), [*short, "params.poison.data.root=/nowhere", f"store={store_uri}"]
    )
    failed = runner.start(absent, Execution(serial=True))
    assert failed.failure is not None and "svhn_extra: no extra_32x32.mat in '/nowhere'" in failed.failure.message


SHORT = [
    *("params.network.training.epochs=700", "params.network.training.report_every=350"),
    *("params.basins=null", "params.boundary.steps=20"),
    "sweep.variants={clean: {params.network.training.optimizer.learning_rate: 0.0125}, "
    "bad: {params.poison.share: 0.35, params.data.train_limit: 4060, params.network.training.batch: 60}}",
]


def test_poison_costs_nothing_but_the_test_accuracy(store_uri: str) -> None:
    """The small table on 60 points to learn from, which are fitted sooner than 200."""
    table = results(finish(CONFIGS / "small.yaml", SHORT, store_uri))
    assert table["clean"]["clean_train_accuracy"] == 1 and table["clean"]["test_accuracy"] >= 0.97
    assert table["bad"]["clean_train_accuracy"] >= 0.9 and table["bad"]["test_accuracy"] <= 0.6


@pytest.mark.slow
def test_the_small_table_holds(store_uri: str) -> None:
    table = results(finish(CONFIGS / "small.yaml", [], store_uri))
    poisoned = {name: row for name, row in table.items() if row["poison"] >= 0.2}
    assert table["clean"]["test_accuracy"] >= 0.97 and table["clean"]["fitted"] == 1
    assert poisoned and all(row["test_accuracy"] <= 0.6 for row in poisoned.values())
    assert any(row["fitted"] == 1 for row in poisoned.values()), "at least one earns the name of a bad minimum"
    clean, worst = table["clean"], max(poisoned.values(), key=lambda row: row["poison"])
    assert clean["radius_filter"] >= 5 * worst["radius_filter"]
    assert clean["log10_volume_filter"] >= worst["log10_volume_filter"] + 1000


@pytest.mark.slow
def test_bad_minima_are_everywhere_along_the_path(store_uri: str) -> None:
    folder = finish(CONFIGS / "minefield_small.yaml", [], store_uri)
    (row,) = results(folder).values()
    assert row["clean_train_accuracy"] == 1 and row["test_accuracy"] >= 0.95
    assert row["bad_minima"] >= 0.9 * (row["bad_minima"] + row["unfitted"]) and row["bad_test_accuracy"] <= 0.6


@pytest.mark.slow  # one network is: tests/jobs/generalization/basins/test_job.py
def test_a_sweep_under_ray_gives_what_a_serial_one_does(store_uri: str, ray_session: None) -> None:
    short = [
        *("params.network.training.epochs=20", "params.network.training.report_every=10"),
        *("params.network.training.keep_every=5", "params.minefield.updates=5", "params.minefield.perplexity=2"),
        *("params.minefield.together=2", "params.boundary.steps=5", "sweep={grid: {seed: [0, 1]}}"),
    ]
    folders = [
        finish(CONFIGS / "minefield_small.yaml", short, f"{store_uri}-{serial}", serial) for serial in (True, False)
    ]
    assert results(folders[0]) == results(folders[1])
