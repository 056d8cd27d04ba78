"""A network and images of the user's own, by import path: one spec measures radius, volume, coefficient and spectra."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.generalization.job import estimate, run
from jobs.generalization.params import Params
from service.errors import InputError
from service.planning.validation import validate

OWN = """
import torch
from torch import nn


class Halves:
    name, classes, shape = "halves", ("left", "right"), (3, 6, 6)

    def __init__(self, count, seed):
        stream = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, 2, (count,), generator=stream)
        self.pixels = 0.5 * torch.rand(count, 3, 6, 6, generator=stream)
        for image, label in zip(self.pixels, self.labels.tolist()):
            image[:, :, 3 * label : 3 * label + 3] += 0.3
        self.digest = f"halves-{count}-{seed}"

    def __len__(self):
        return len(self.labels)

    def images(self, indices, generator=None):
        return self.pixels[indices]


def halves(split, source):
    return Halves(60, 0) if split == "train" else Halves(30, 1)


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(9 * width, 2),
        )

    def forward(self, images):
        return self.body(images)


def trained(path, width=4):
    torch.manual_seed(0)
    net, data = Net(width), Halves(60, 0)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data.pixels), data.labels).backward()
        optimizer.step()
    torch.save(net.state_dict(), path)


def build(weights, width=4):
    net = Net(width)
    net.load_state_dict(torch.load(weights))
    return net
"""

MEASURED: dict[str, Any] = {
    "data": {"name": "mypackage.module:halves"},
    "basins": {
        "rays": 4,
        "directions": ["gaussian", "hessian"],
        "cuts_from": "centre",
        "cuts": [0.1],
        "cap": 50.0,
        "learning_coefficient": {"chains": 2, "burn_in": 5, "draws": 10},
    },
    "spectra": {"trace_probes": 3, "density_probes": 2, "density_steps": 5, "layers": False, "sharpness": None},
}


@pytest.mark.usefixtures("own_package")
def test_one_spec_measures_what_a_user_brings(make_run: Any, tmp_path: Path) -> None:
    from mypackage import module  # type: ignore[import-not-found]

    module.trained(tmp_path / "weights.pt")
    options = {"weights": str(tmp_path / "weights.pt")}
    network = {"kind": "model", "name": "mypackage.module:build", "options": options}
    params = validate(Params, {**MEASURED, "network": network}, "params")
    cost = estimate(params)
    assert cost.core_seconds is not None and cost.multiply_adds is not None

    handle = make_run()
    run(params, handle)
    metrics = handle.metrics
    assert metrics["clean_train_accuracy"] == 1 and metrics["test_accuracy"] > 0.8
    for name in ("radius_gaussian", "log10_volume_gaussian", "radius_hessian", "learning_coefficient", "trace"):
        assert torch.tensor(metrics[name]).isfinite(), name
    for name in ("basins", "rays", "chains", "spectra", "spectral_density"):
        assert handle.folder.exists(f"tables/{name}.parquet"), name

    absent = {**network, "options": {"weights": str(tmp_path / "absent.pt")}}
    refused = {**network, "options": {**options, "depth": 3}}
    for given, sentence in (
        (absent, "'mypackage.module:build' cannot be built: FileNotFoundError: .*absent.pt"),
        (refused, "refuses its options"),
    ):
        with pytest.raises(InputError, match=sentence):
            run(validate(Params, {**MEASURED, "network": given}, "params"), make_run("wrong"))
