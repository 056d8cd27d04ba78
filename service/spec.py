"""The spec: a YAML file, with dotted overrides, as one strict and frozen object.

`load(path, overrides)` reads it; nothing later sees a dictionary. The parameters of the job are validated by the
job's own `Params`, so an unknown or misspelt field is an error that names the nearest right one.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, SerializeAsAny, field_validator, model_validator

from service import catalog
from service.errors import FieldError, SpecError, shown
from service.params import Section
from service.planning import yaml_text
from service.planning.sections import Json, becomes_another
from service.planning.validation import validate

MAX_TRIALS = 10_000  # of a sweep


class Uniform(Section):
    uniform: Annotated[tuple[float, float], Field(description="lower and upper bound")]


class LogUniform(Section):
    loguniform: Annotated[tuple[float, float], Field(description="lower and upper bound, both above 0")]


class RandInt(Section):
    randint: Annotated[tuple[int, int], Field(description="lowest value, and the first value above the highest")]


class Choice(Section):
    choice: Annotated[tuple[Json, ...], Field(min_length=1, description="values, each as likely")]


Distribution = Uniform | LogUniform | RandInt | Choice


class Threshold(Section):
    """Stop a trial that has not reached a bound by a given step. It judges each trial alone: deterministic."""

    kind: Literal["threshold"] = Field(description="stop what has not reached a bound in time")
    metric: str = Field(description="the metric to look at")
    at_step: int = Field(gt=0, description="the first report at or after this step is judged")
    at_least: float | None = Field(None, description="the trial goes on if the metric is at least this")
    at_most: float | None = Field(None, description="the trial goes on if the metric is at most this")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give at_least or at_most, one of the two")
        return self


class Asha(Section):
    """Asynchronous successive halving (Li et al. 2020), each variant by itself.

    Which trials it stops depends on the order in which they report, hence on the number of workers.
    """

    kind: Literal["asha"] = Field(description="stop what is worse than most others so far")
    grace_steps: int = Field(gt=0, description="no trial is stopped before this step")
    max_steps: int = Field(gt=0, description="the step at which a trial is done")
    reduction: float = Field(3.0, gt=1, description="at each rung 1 of so many trials goes on")


Scheduler = Annotated[Threshold | Asha, Field(discriminator="kind")]


class Sweep(Section):
    """Many trials from one spec: every variant x every point of the grid x `samples` random draws."""

    variants: dict[str, dict[str, Json]] = Field(
        {},
        description="name -> overrides, e.g. {wide: {params.x.width: 64}}; figures and the choice of the best treat "
        "each variant by itself",
    )
    grid: dict[str, Annotated[tuple[Json, ...], Field(max_length=MAX_TRIALS)]] = Field(
        {}, description="field -> values, e.g. {seed: [0, 1], params.x.y: [3, 4]}; all combinations are run"
    )
    random: dict[str, Distribution] = Field(
        {},
        description="field -> {uniform: [low, high]}, {loguniform: [low, high]}, {randint: [low, high]} (high "
        "excluded) or {choice: [value, …]}",
    )
    samples: int = Field(1, ge=1, le=MAX_TRIALS, description="draws for each variant and grid point")
    metric: str | None = Field(None, description="what makes one trial better than another")
    mode: Literal["max", "min"] = Field("max", description="whether more or less of the metric is better")
    scheduler: Scheduler | None = Field(None, description="when to stop a trial early")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(len(values) == 0 for values in self.grid.values()):
            raise ValueError("a field of the grid has no values")
        for field, values in self.grid.items():
            if any(value in values[:place] for place, value in enumerate(values)):
                raise FieldError(f"grid.{field}", "have no value twice: the same trial would be run again", values)
        if self.samples > 1 and not self.random:
            raise ValueError("samples above 1 would repeat the same trial: give `random` something to draw")
        if isinstance(self.scheduler, Asha) and self.metric is None:
            raise ValueError("the asha scheduler needs `metric`")
        return self


class Resources(Section):
    """What one trial occupies while it runs: `workers` times all the rest. If it fans out: a task of cells."""

    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="processes that train one trial together, each with these cpus and gpus; a batch is split among "
        "them",
    )
    cpus: float = Field(1, gt=0, le=1024, description="CPU cores per worker")
    gpus: float = Field(0, ge=0, le=64, description="GPUs per worker; fractions share one")
    memory_gb: float | None = Field(None, gt=0, description="memory per worker in GiB, for placement")
    threads: int = Field(1, ge=1, le=256, description="threads of the numerics; results depend on it, so it is fixed")
    tf32: bool = Field(
        True,
        description="on a GPU: convolutions in float32 round their factors to TF32, 10 bits behind the point, as torch "
        "does if nobody says otherwise; false: they do not, several times as slowly. Matrix products never do",
    )

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.workers > 1 and self.gpus % 1:
            raise FieldError("gpus", f"be whole with {self.workers} workers: NCCL joins whole GPUs only", self.gpus)
        return self


class Limits(Section):
    """When to give up."""

    max_seconds: float | None = Field(None, gt=0, description="stop the run, resumable, after so many seconds")
    max_failures: int = Field(
        2,
        ge=0,
        le=100,
        description="how often a trial, or a task of cells, whose worker or node died is started again; a cell "
        "that raises is tried a second time, unless this is 0",
    )
    max_concurrent: int | None = Field(None, ge=1, description="trials at the same time; none: as many as fit")
    max_wait_seconds: float = Field(
        1800,
        gt=0,
        description="how long all may wait for room, while a cluster grows, before it is given up",
    )


class JobSpec(Section):
    """What a user asks for: which job, its parameters, the seed, the sweep, the resources, the limits, the store."""

    job: str = Field(description="a name from `assay jobs`, or the import path of a module of your own")
    name: str = Field("", description="a short name for the run; default: the job's")
    seed: int = Field(0, ge=0, lt=2**63, description="where all randomness comes from")
    params: SerializeAsAny[BaseModel] = Field(description="the job's own parameters: `assay jobs JOB`")
    sweep: Sweep | None = Field(None, description="many trials from this one spec")
    resources: Resources = Field(Resources(), description="what one trial occupies")
    limits: Limits = Field(Limits(), description="when to give up")
    store: str = Field("assay-store", min_length=1, description="folder or URI for runs and models")

    @field_validator("name")
    @classmethod
    def _short_name(cls, name: str) -> str:
        if not re.fullmatch(r"([a-z0-9][a-z0-9-]{0,31})?", name):
            raise ValueError("use up to 32 lower-case letters, digits and dashes")
        return name

    @property
    def title(self) -> str:
        """The run's short name: the user's, or the job's."""
        return self.name or re.sub(r"[^a-z0-9]+", "-", self.job.lower()).strip("-")[:32]

    def tree(self) -> dict[str, Json]:
        """The whole spec as plain values, every default written out."""
        return self.model_dump(mode="json")

    def with_overrides(self, overrides: dict[str, Json]) -> "JobSpec":
        """The same spec with dotted fields replaced, validated again."""
        tree = self.tree()
        for dotted, value in overrides.items():
            place, _, name = dotted.rpartition(".")
            if name == "kind" and becomes_another(self, place, value):
                hint = f"sweep the section: `{place}: {{kind: {value}}}`"
                raise SpecError(f"{dotted}: {value!r} has fields of its own", hint)
            assign(tree, dotted, value)
        return build(tree)


def assign(tree: dict[str, Json], dotted: str, value: Json) -> None:
    """Set `a.b.c` in nested dictionaries, making those that are absent."""
    *parents, last = dotted.split(".")
    for depth, name in enumerate(parents):
        child = tree.get(name)
        if child is None:
            child = tree[name] = {}
        elif not isinstance(child, dict):
            raise SpecError(f"{dotted}: {'.'.join(parents[: depth + 1])} is {child!r}, not a group of fields")
        tree = child
    tree[last] = value


def parse_override(text: str) -> tuple[str, Json]:
    """`params.grid.steps=51` -> ("params.grid.steps", 51). The value is read as YAML."""
    dotted, sign, value = text.partition("=")
    if not sign or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", dotted):
        raise SpecError(f"override {text!r}: write field=value, for example seed=3 or params.training.lr=1e-3")
    return dotted, yaml_text.parse(value)


def load(path: str, overrides: list[str] | None = None) -> JobSpec:
    """Read a spec file and apply `field=value` overrides. SpecError names the file and the field."""
    tree = read(path, overrides)
    with of_file(path):
        return build(tree)


@contextmanager
def of_file(path: str) -> Iterator[None]:
    """A SpecError from inside names the file."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"{path}: {error.message}", error.hint) from error


def read(path: str, overrides: list[str] | None = None) -> dict[str, Json]:
    """The plain values of a spec file and of `field=value` overrides, of which only the name of the job is checked."""
    try:
        with open(path, "rb") as file:
            text = file.read(yaml_text.MAX_BYTES + 1)  # a pipe or a device does not say how long it is
    except OSError as error:
        raise SpecError(f"cannot read the spec {path}: {error.strerror or error}") from error
    with of_file(path):
        tree = yaml_text.parse(text)
        if not isinstance(tree, dict):
            raise SpecError(f"a spec is a mapping of fields, this is {shown(tree)}")
        for override in overrides or []:
            assign(tree, *parse_override(override))
        job_of(tree)
    return tree


def job_of(tree: dict[str, Json]) -> str:
    """The name of the job. SpecError if there is none, UnknownNameError if no job has it."""
    name = tree.get("job")
    if not isinstance(name, str):
        raise SpecError(
            "job: missing" if name is None else f"job: must be a name, not {name!r}",
            hint=f"one of {', '.join(catalog.names())}",
        )
    catalog.module_of(name)
    return name


def build(tree: dict[str, Json]) -> JobSpec:
    """Validate plain values into a spec: first the job's parameters, then everything around them."""
    tree = dict(tree)
    name = job_of(tree)
    job = catalog.load(name)
    given = tree.get("params")
    params = validate(job.params, {} if given is None else given, "params")
    tree["params"] = {}
    # `params` is validated above by its own model, so here it only has to be carried along
    spec = validate(JobSpec, tree, "")
    if spec.resources.workers > 1 and job.placement != "shared_batches":
        raise FieldError(
            "resources.workers",
            f"be 1: the job {name} does not share its batches among processes",
            spec.resources.workers,
        )
    return spec.model_copy(update={"params": params})
