"""Everything that is written down is read back: any number, any text, any nesting."""

import json
import math
import uuid
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from service import json_text, models
from service.execution import checkpoints, records
from service.execution.fan_out import cells
from service.execution.fan_out.cells import CellStore, Outcome
from service.execution.records import Artefact, Failure, RunRecord, TrialRecord
from service.handle.rows import read_rows, table_of
from service.models import CardDraft, ModelCard, TensorSpec
from service.store import Folder, open_store

TEXTS = st.one_of(
    st.text(st.characters(codec=None, categories=None), max_size=8),  # halves of surrogate pairs as well
    st.sampled_from(["NaN", "'NaN", "''NaN", "Infinity", "-Infinity", "'-Infinity", "nan", "inf", "null", "1e3"]),
)
FLOATS = st.one_of(st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, -0.0]))
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
TREES = st.dictionaries(TEXTS, PLAIN, max_size=3)
COUNTS = st.integers(0, 2**63 - 1)


def chosen(model: type[BaseModel], name: str) -> st.SearchStrategy[Any]:
    """One of the values of a literal field."""
    return st.sampled_from(get_args(model.model_fields[name].annotation))


ARTEFACTS = st.builds(Artefact, path=TEXTS, kind=chosen(Artefact, "kind"), title=TEXTS, bytes=COUNTS, sha256=TEXTS)
FAILURES = st.builds(Failure, cause=chosen(Failure, "cause"), message=TEXTS, traceback=TEXTS)
METRICS = st.dictionaries(TEXTS, FLOATS, max_size=3)
TUPLES = st.lists(TEXTS, max_size=2).map(tuple)
RECORDS = st.one_of(
    ARTEFACTS,
    FAILURES,
    st.builds(
        TrialRecord,
        id=TEXTS,
        label=TEXTS,
        status=chosen(TrialRecord, "status"),
        seconds=FINITE,
        metrics=METRICS,
        artefacts=st.lists(ARTEFACTS, max_size=2).map(tuple),
        warnings=TUPLES,
        failure=st.none() | FAILURES,
    ),
    st.builds(
        RunRecord,
        id=TEXTS,
        job=TEXTS,
        name=TEXTS,
        status=chosen(RunRecord, "status"),
        created=TEXTS,
        updated=TEXTS,
        seconds=FINITE,
        trials=COUNTS,
        trials_done=COUNTS,
        provenance=TREES,
        artefacts=st.lists(ARTEFACTS, max_size=2).map(tuple),
        models=TUPLES,
        best=st.dictionaries(TEXTS, TEXTS, max_size=2),
        warnings=TUPLES,
        failure=st.none() | FAILURES,
    ),
)
TENSORS = st.lists(
    st.builds(TensorSpec, name=TEXTS, datatype=TEXTS, shape=st.lists(st.integers(-1, 9), max_size=3).map(tuple)),
    max_size=2,
).map(tuple)
DRAFTS = st.builds(
    CardDraft,
    architecture=TEXTS,
    arguments=TREES,
    study=TEXTS,
    task=TEXTS,
    inputs=TENSORS,
    outputs=TENSORS,
    settings=TREES,
    metrics=METRICS,
    description=TEXTS,
)
ANY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(one: Any, other: Any) -> bool:
    """Equal, and NaN equals itself, and 1 is not 1.0, nor 0.0 the same as -0.0."""
    return repr(one) == repr(other)


def strict(data: bytes) -> Any:
    """What any other program reads, which knows no NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(data, parse_constant=refuse)


@pytest.fixture
def folder() -> Folder:
    """In memory: a disk would be waited for at each example."""
    return open_store(f"memory://{uuid.uuid4().hex}")


@ANY
@given(value=PLAIN)
def test_any_plain_value_is_read_back(value: Any) -> None:
    text = json_text.dumps(value)
    strict(text.encode())
    assert same(json_text.loads(text), value) and same(json_text.plain(value), value)
    strict(json_text.dumps(value, marked=False).encode())


def test_the_numbers_that_json_lacks_are_texts() -> None:
    value = {"a": [math.nan, (math.inf, -math.inf)], "b": "NaN", "c": "'NaN", "d": 1.5}
    assert json.loads(json_text.dumps(value)) == {
        "a": ["NaN", ["Infinity", "-Infinity"]],
        "b": "'NaN",
        "c": "''NaN",
        "d": 1.5,
    }
    assert json.loads(json_text.dumps(value, marked=False))["b"] == "NaN"
    with pytest.raises(ValueError, match="not plain JSON"):
        json_text.plain({"a": object()})


@ANY
@given(record=RECORDS)
def test_any_record_is_read_back(folder: Folder, record: BaseModel) -> None:
    records.write(folder, "record.json", record)
    strict(folder.read("record.json"))
    assert same(type(record).model_validate(folder.read_json("record.json")), record)
    if isinstance(record, TrialRecord):
        records.write(folder, "trial.json", record)
        assert same(records.read_trial(folder), record)
    if isinstance(record, RunRecord):
        records.write(folder, "run.json", record)
        assert same(records.read_run(folder), record)


@ANY
@given(draft=DRAFTS)
def test_any_card_is_read_back(folder: Folder, draft: CardDraft) -> None:
    staged = checkpoints.decode(checkpoints.encode({"draft": draft.model_dump()}))
    assert same(CardDraft(**staged["draft"]), draft)
    folder.delete()
    card = models.publish(folder, "net", {}, draft)
    strict(folder.read("models/net/1/card.json"))
    assert same(models.find(folder, "net"), card) and isinstance(card, ModelCard)
    assert same(CardDraft(**card.model_dump(include=set(CardDraft.model_fields))), draft)


@ANY
@given(manifest=st.lists(ARTEFACTS, max_size=3))
def test_any_manifest_is_read_back(folder: Folder, manifest: list[Artefact]) -> None:
    folder.write_json("manifest.json", [each.model_dump() for each in manifest])
    assert same([Artefact(**each) for each in folder.read_json("manifest.json")], manifest)


@ANY
@given(cell=PLAIN, result=PLAIN, failure=FAILURES)
def test_any_cell_is_read_back(folder: Folder, cell: Any, result: Any, failure: Failure) -> None:
    text = cells.canonical(cell, "cell")
    strict(text.encode())
    assert cells.canonical(json_text.loads(text), "cell") == text
    folder.delete()
    store = CellStore(folder)
    store.add("a", text, Outcome(0.0, checkpoints.encode(result)))
    store.add("b", text, Outcome(0.0, failure=records.describe(ValueError(failure.message))))
    store.flush()
    assert same(checkpoints.decode(CellStore(folder).load({"a"})["a"]), result)


@ANY
@given(rows=st.lists(st.dictionaries(st.sampled_from("abc"), FLOATS, min_size=1), min_size=1, max_size=4))
def test_any_row_of_metrics_is_read_back(folder: Folder, rows: list[dict[str, float]]) -> None:
    folder.write_table("metrics.parquet", table_of(rows))
    assert [{name: repr(value) for name, value in row.items()} for row in read_rows(folder)] == [
        {name: repr(row[name]) for name in dict.fromkeys(name for each in rows for name in each) if name in row}
        for row in rows
    ]
