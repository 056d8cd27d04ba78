"""Specs: what is read, what is refused, and with which sentence."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import spec
from service.errors import AssayError, SpecError
from service.planning import yaml_text

WALK = "job: tests.service.walk\n"


def load(tmp_path: Path, text: str, *overrides: str) -> spec.JobSpec:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return spec.load(str(path), list(overrides))


def test_defaults_are_written_out(tmp_path: Path) -> None:
    read = load(tmp_path, WALK)
    assert read.params.pace.steps == 10  # type: ignore[attr-defined]
    assert read.resources.cpus == 1
    assert read.tree()["params"]["pace"] == {"steps": 10, "seconds_per_step": 0.0}
    assert spec.build(read.tree()) == read


def test_overrides_are_typed_by_the_schema(tmp_path: Path) -> None:
    read = load(tmp_path, WALK + "seed: 1\n", "seed=7", "params.pace.seconds_per_step=1e-3", "params.sizes=[2, 3]")
    assert read.seed == 7
    assert read.params.pace.seconds_per_step == 0.001  # type: ignore[attr-defined]
    assert read.params.sizes == (2, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("job: deep_thinkin\n", "unknown job 'deep_thinkin' (did you mean 'deep_thinking'?)"),
        ("seed: 1\n", "job: missing"),
        (WALK + "sed: 1\n", "sed: unknown field (did you mean 'seed'?)"),
        (WALK + "params: {pace: {stepps: 1}}\n", "params.pace.stepps: unknown field (did you mean 'steps'?)"),
        (WALK + "seed: 1\nseed: 2\n", "line 3: 'seed' is given twice (first on line 2)"),
        (WALK + "params: {careful: no}\n", "params.careful must be true or false; it is 'no'"),
        (
            WALK + "params: {pace: {steps: '3'}}\n",
            "params.pace.steps must be a whole number; it is '3'",
        ),
        (WALK + "params: {pace: {steps: 0}}\n", "params.pace.steps must be above 0; it is 0"),
        (WALK + "params: {drift: .nan}\n", "params.drift must be a finite number; it is nan"),
        (WALK + "params: 3\n", "params must be a group of fields; it is 3"),
        (WALK + "limits: {max_failures: 1e9}\n", "limits.max_failures"),
        (WALK + "name: A B\n", "name: use up to 32 lower-case letters, digits and dashes"),
        (
            WALK + "sweep: {scheduler: {kind: asha, grace_steps: 1, max_steps: 2}}\n",
            "the asha scheduler needs `metric`",
        ),
        (WALK + "sweep: {scheduler: {kind: ashha}}\n", "sweep.scheduler"),
        (WALK + "sweep: {grid: {seed: [1, 2, 1]}}\n", "sweep.grid.seed must have no value twice: the same trial would"),
        (WALK + "sweep: {grid: {params.drift: [1, 1.0]}}\n", "sweep.grid.params.drift must have no value twice"),
        (
            WALK + f"sweep: {{grid: {{seed: {list(range(10_001))}}}}}\n",
            "sweep.grid.seed must have at most 10000 entries; it is a list of 10001",
        ),
        (WALK + "sweep: {random: {seed: {randnt: [1, 2]}}}\n", "sweep.random.seed"),
        ("- a\n- b\n", "a spec is a mapping of fields, this is ['a', 'b']"),
        ("a: [1\n", "not valid YAML"),
        ("a: &x 1\nb: *x\n", "anchors and aliases are not allowed"),
        ("job: !!python/object/apply:os.system ['true']\n", "tags such as '!!python/object/apply:os.system' are not"),
        ("\x00", "not valid YAML"),
        ("", "a spec is a mapping of fields, this is empty"),
        ("[" * 5000, "not valid YAML"),
        ("a: 1\nb: !!bool yes", "line 2: tags such as '!!bool' are not allowed; write a plain value"),
        ("a: !!float ''", "line 1: tags such as '!!float'"),
        ("!!map [1]", "line 1: tags such as '!!map'"),
        (WALK + "params: {witness: !!binary aGk=}", "line 2: tags such as '!!binary'"),
        (WALK + 'params: {witness: "\\ud800"}', "line 2: '\\\\ud800' has characters that are not text"),
        (WALK + 'params: {"\\ud800": 1}', "line 2: '\\\\ud800' has characters that are not text"),
        (WALK + "params: []\n", "params must be a group of fields; it is []"),
        (WALK + "params: false\n", "params must be a group of fields; it is false"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("job: .foo\n", "unknown job '.foo'"),
        ("job: ..deep_thinking.job\n", "unknown job '..deep_thinking.job'"),
        ("job: a\nseed: " + "9" * 5000, "line 2: a number must have at most 308 digits; it has 5,000"),
    ],
)
def test_bad_specs_get_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(AssayError) as caught:
        load(tmp_path, text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "override",
    [
        "seed",
        "=3",
        "a b=3",
        "seed=[1",
        "seed.x=3",
        "params.nothing=1",
        pytest.param("params" + ".a" * 1500 + "=1", id="params too deep"),
        pytest.param("sweep" + ".a" * 1500 + "=1", id="sweep too deep"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(SpecError):
        load(tmp_path, WALK + "seed: 1\n", override)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read the spec .*No such file"):
        spec.load(str(tmp_path / "absent.yaml"))
    with pytest.raises(SpecError, match="cannot read the spec .*directory"):
        spec.load(str(tmp_path))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_a_file_without_an_end() -> None:
    with pytest.raises(SpecError, match="/dev/zero: the YAML must have at most 1,048,576 bytes; it has more"):
        spec.load("/dev/zero")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        (".5", 0.5),
        ("-2", -2),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("010", 10),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("'1'", "1"),
    ],
)
def test_scalars_are_read_as_people_mean_them(text: str, value: object) -> None:
    read = yaml_text.parse(text)
    assert read == value
    assert type(read) is type(value)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**60), 2**60)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_dumped_is_read_back(value: object) -> None:
    assert yaml_text.parse(yaml_text.dump(value)) == value
