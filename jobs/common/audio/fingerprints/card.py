"""The card of a database of songs: what serving needs to know of it."""

from collections.abc import Sequence

from jobs.common.audio.fingerprints.database import Database
from jobs.common.metrics.intervals import clopper_pearson
from service.models import CardDraft, TensorSpec

TASK = "music_identification"
SOUNDS = "sounds"


def database_card(
    study: str,
    database: Database,
    names: Sequence[str],
    *,
    samples: int,
    false_alarms: float | None,
    metrics: dict[str, float],
    description: str,
) -> CardDraft:
    """names: of its songs. samples: of the sounds that calibrated it, which is the most that it is asked about at once.
    false_alarms: the rate that it was calibrated for; None: it was not. metrics: what was measured besides.
    """
    queries, alarms = len(database.outside), database.alarms
    low, high = clopper_pearson(alarms, queries)
    return CardDraft(
        architecture="jobs.common.audio.fingerprints.database:database",
        arguments=database.arguments,
        study=study,
        task=TASK,
        inputs=(TensorSpec(name=SOUNDS, datatype="FP32", shape=(-1, -1)),),
        outputs=(TensorSpec(name="aligned", datatype="INT64", shape=(-1,)),),
        settings={
            "names": list(names),
            "rate": database.rate,
            "samples": samples,
            "false_alarms": false_alarms,
        },
        metrics={
            "songs": float(len(database)),
            "hashes": float(len(database.hashes)),
            "threshold": float(database.threshold),
            "outside_queries": float(queries),
            "outside_alarms": float(alarms),
            "outside_alarms_low": low,
            "outside_alarms_high": high,
            **metrics,
        },
        description=description,
    )
