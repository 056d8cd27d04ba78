"""The attacked fingerprint as a judge of its own, and the database of songs that is saved with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from jobs.common.audio.fingerprints.card import database_card
from jobs.common.audio.fingerprints.database import FEWEST, Database
from jobs.common.audio.fingerprints.fingerprint import FingerprintParams
from jobs.copyright_attack.judges.base import Fingerprint, Judge, heard
from jobs.copyright_attack.params import Params
from service.errors import InputError
from service.run import Run


class AttackedJudge(Judge):
    """Identifies songs by the fingerprint that attacks were made on: the one judge that is attacked with knowledge."""

    name = "attacked"
    title = "the attacked fingerprint"
    unit = "aligned hashes"
    rule = "more aligned hashes than a threshold that is calibrated on songs which are not enrolled"

    def __init__(self, params: FingerprintParams) -> None:
        super().__init__()
        self.params, self.threshold = params, FEWEST - 1
        self._database: tuple[tuple[str, ...], Database] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be made again: cells are kept by the content of what they share."""
        return {**self.__dict__, "_database": None}

    @property
    def shortest(self) -> float:  # type: ignore[override]
        return self.params.build().shortest / self.params.rate

    def fingerprint(self, sound: np.ndarray, rate: int) -> Fingerprint:
        """hashes, times: int64 (count,); samples: int64 (1,), the length."""
        samples, fingerprint = torch.from_numpy(heard(sound, rate, self.params.rate)), self.params.build()
        if len(samples) < fingerprint.shortest:
            hashes = times = torch.zeros(0, dtype=torch.int64)
        else:
            hashes, times = fingerprint.hashes(samples)
        return {"hashes": hashes.numpy(), "times": times.numpy(), "samples": np.array([len(samples)])}

    @property
    def database(self) -> Database:
        """All songs that are enrolled. InputError if one of them has no hash."""
        if self._database is None or self._database[0] != self.songs:
            # copied: arrays of a worker are read-only
            arrays = [
                {name: torch.from_numpy(array.copy()) for name, array in each.items()} for each in self._songs.values()
            ]
            hashes = [(each["hashes"], each["times"]) for each in arrays]
            lengths = [int(each["samples"]) for each in arrays]
            self._database = self.songs, Database.of_hashes(self.params.build(), hashes, lengths)
        return self._database[1]

    def scores(self, query: Fingerprint) -> np.ndarray:
        hashes, times = (torch.from_numpy(query[name].copy()) for name in ("hashes", "times"))
        aligned: np.ndarray = self.database.aligned(hashes, times).numpy().astype(np.float64)
        return aligned

    def accepts(self, score: float, runner_up: float) -> bool:
        return score > self.threshold


def calibrate(judge: AttackedJudge, unrelated: Sequence[float], params: Params, run: Run) -> None:
    """Set the threshold of the judge and of its database. unrelated: best scores of excerpts that are of no song."""
    aligned = [int(score) for score in unrelated]
    try:
        judge.database.calibrate_by(aligned, params.database_false_alarms)
        judge.threshold = int(judge.database.threshold)
    except InputError as error:
        run.warn(f"the database is saved without a calibrated threshold: {error.message}")
        judge.threshold = max([FEWEST - 1, *aligned])


def keep(judge: AttackedJudge, params: Params, metrics: dict[str, float], run: Run) -> None:
    """Save the database of the songs. metrics: what was measured of it."""
    calibrated = len(judge.database.outside) > 0
    draft = database_card(
        "copyright_attack",
        judge.database,
        judge.songs,
        samples=round(params.seconds * judge.params.rate),
        false_alarms=params.database_false_alarms if calibrated else None,
        metrics=metrics,
        description=f"{len(judge.songs)} songs of {params.data.name}, by the peaks of their spectrograms",
    )
    run.save_model(params.model_name, judge.database, draft)
