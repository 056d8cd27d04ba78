"""The specs of the study: valid as they are, the paper's in miniature, and the table of results on digits."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from service import models, spec
from service.store import open_store
from tests.jobs.specs import finish, results

CONFIGS = Path(__file__).parents[3] / "configs" / "free_training"


@pytest.fixture(scope="module")
def generated_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in the files of CIFAR-10: five batches to train and one to test, of 40 images each."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    stream = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        pixels = stream.integers(0, 256, (40, 3072), dtype=np.uint8)
        content = {b"data": pixels, b"labels": stream.integers(0, 10, 40).tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
    names = {b"label_names": [f"class {number}".encode() for number in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    return root


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_spec_is_valid_without_its_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_DATA", "/nowhere")
    loaded = spec.load(str(path))
    assert loaded.job == "free_training" and loaded.sweep is not None and loaded.sweep.metric == "robust"


def test_imagenet_is_gone_through_23_times_without_the_images_held_out() -> None:
    training = spec.load(str(CONFIGS / "imagenet_paper.yaml")).params.training
    epoch = 4 * ((1_281_167 - training.held_out) // training.batch)  # each minibatch is replayed
    assert training.updates == 23 * epoch and training.report_every == epoch
    assert training.optimizer.decay.milestones == (8 * epoch, 16 * epoch)


def test_cifar10_says_how_often_it_is_gone_through() -> None:
    path = CONFIGS / "cifar10_paper.yaml"
    training = spec.load(str(path)).params.training
    passes = training.updates / 8 / ((50_000 - training.held_out) // training.batch)
    assert f"Free-8 goes {passes:.1f} times through the images" in path.read_text()


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("{depth: 8, width: 1}", 75_290),
        pytest.param("{depth: 32, width: 10}", 45_901_914, marks=pytest.mark.slow),
    ],
)
def test_the_papers_recipe_makes_two_updates(
    generated_cifar10: Path, store_uri: str, size: str, parameters: int
) -> None:
    """Everything as in the paper but the numbers of images and updates, and in the short test the network's size."""
    small = [
        f"params.data.root={generated_cifar10}",
        "params.data.test_limit=1",
        f"params.network.options={size}",
        "params.training.updates=2",
        "params.training.batch=2",
        "params.training.held_out=1",
        "params.training.validation.steps=1",
        "params.evaluation.attacks={fgsm: {kind: fgsm}}",
        "params.method={kind: free, replay: 2}",
        "sweep=null",
        "resources={}",
    ]
    folder = finish(CONFIGS / "cifar10_paper.yaml", small, store_uri)
    (row,) = results(folder).values()
    assert (row["method"], row["updates"], row["gradient_evaluations"]) == ("Free-2", 2, 2)
    (card,) = models.list_models(open_store(store_uri))
    tracked = card.parameters - parameters  # the statistics of batch norm are saved besides the parameters
    assert 0 < tracked < 0.1 * parameters


def test_free_training_is_robust_for_the_price_of_natural_training(store_uri: str) -> None:
    """Natural and Free-4 of the small table, at a fifth of its updates."""
    short = [
        "params.training.updates=400",
        "params.training.report_every=200",
        "params.training.optimizer.decay.milestones=[200, 300]",
        "params.evaluation.attacks={pgd_20: {kind: pgd, steps: 20, step_size: 0.25}}",
        "sweep.variants={natural: {params.method: {kind: natural}}, free_4: {params.method: {kind: free, replay: 4}}}",
    ]
    folder = finish(CONFIGS / "digits_small.yaml", short, store_uri)
    table = results(folder)
    natural, free = table["natural"], table["free_4"]
    assert natural["gradient_evaluations"] == free["gradient_evaluations"] == 400
    assert min(natural["clean"], free["clean"]) > 0.95
    assert free["robust"] > natural["robust"] + 0.15
    (relative,) = [row for row in folder.read_table("tables/relative.parquet").to_pylist() if row["trial"] == "free_4"]
    assert relative["against"] == "natural" and relative["gradient_evaluations"] == 1
    assert relative["robust"] == pytest.approx(free["robust"] - natural["robust"])
    assert folder.exists("figures/cost.png") and folder.exists("figures/training.png")


@pytest.mark.slow
def test_the_small_table_holds(store_uri: str) -> None:
    table = results(finish(CONFIGS / "digits_small.yaml", [], store_uri))
    free = [table[f"free_{replay}"] for replay in (2, 4, 8)]
    assert all(row["clean"] >= 0.95 for row in table.values())
    assert table["natural"]["robust"] <= 0.45
    assert all(row["robust"] >= table["natural"]["robust"] + 0.25 for row in free)
    assert table["pgd_7"]["robust"] >= max(row["robust"] for row in free)
    spent = {name: row["gradient_evaluations"] for name, row in table.items()}
    alike = dict.fromkeys(("natural", "free_2", "free_4", "free_8"), 2000)
    assert spent == {**alike, "fgsm_rs": 4000, "pgd_7": 16_000}


@pytest.mark.slow
def test_two_workers_under_ray_train_as_one_process_does(store_uri: str, ray_session: None) -> None:
    short = [
        "params.training.updates=12",
        "params.training.report_every=6",
        "params.method={kind: free, replay: 3}",
        "sweep=null",
    ]
    two = finish(CONFIGS / "digits_small.yaml", [*short, "resources.workers=2"], f"{store_uri}-two", serial=False)
    one = finish(CONFIGS / "digits_small.yaml", short, f"{store_uri}-one")
    tables = [folder.read_table("metrics.parquet").to_pylist() for folder in (two, one)]
    for found, expected in zip(*tables, strict=True):
        for name in ("train_loss", "val_clean", "clean"):
            assert found[name] == pytest.approx(expected[name], abs=0.02), name
