"""What Prometheus is told of runs, trials and cells: counted in the driver, added up by Ray's agent on its node.

    assay_runs            counter    job, status      runs that ended
    assay_run_seconds     counter    job              what they took
    assay_trials          counter    job, status      trials that ended
    assay_trial_seconds   histogram  job              what one took
    assay_trials_running  gauge      job
    assay_cells           counter    job, outcome     cells computed (done) and given up (failed)

Prometheus sees them with `ray_` in front, counters with `_total` behind. Those of the endpoints are in
`serving.deployments.statistics` and `serving.http.auth`.
"""

from ray.util.metrics import Counter, Gauge, Histogram

from service.execution.fan_out.mapping import CellProgress

TRIAL_SECONDS = [1.0, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400]


class RunMetrics:
    """The metrics of one run. Needs Ray. Costs microseconds at each call, and is never called for a single cell."""

    def __init__(self, job: str) -> None:
        self._job = {"job": job.encode("ascii", "backslashreplace").decode()}  # Ray takes nothing else in a tag
        by = ("job",)
        self._runs = Counter("assay_runs", "Runs that ended.", ("job", "status"))
        self._run_seconds = Counter("assay_run_seconds", "Time that runs took.", by)
        self._trials = Counter("assay_trials", "Trials that ended.", ("job", "status"))
        self._trial_seconds = Histogram("assay_trial_seconds", "Time that a trial took.", TRIAL_SECONDS, by)
        self._running = Gauge("assay_trials_running", "Trials that run now.", by)
        self._cells = Counter("assay_cells", "Cells computed or given up.", ("job", "outcome"))
        self._trials_running: set[str] = set()
        self._told: dict[tuple[str, str], dict[str, int]] = {}  # trial, map -> outcome -> cells when last told

    def run_ended(self, status: str, seconds: float) -> None:
        self._runs.inc(tags={**self._job, "status": status})
        self._run_seconds.inc(max(seconds, 1e-3), tags=self._job)  # a counter takes no zero

    def trial_started(self, trial: str) -> None:
        self._trials_running.add(trial)
        self._running.set(len(self._trials_running), tags=self._job)

    def trial_ended(self, trial: str, status: str, seconds: float) -> None:
        self._trials_running.discard(trial)
        self._running.set(len(self._trials_running), tags=self._job)
        self._trials.inc(tags={**self._job, "status": status})
        self._trial_seconds.observe(max(seconds, 1e-3), tags=self._job)

    def cells(self, trial: str, progress: CellProgress) -> None:
        """How far a map is, told every few seconds."""
        counts = {"done": progress.computed, "failed": progress.failed}
        before = self._told.get((trial, progress.name), {})
        for outcome, count in counts.items():
            counted = before.get(outcome, 0)
            if (new := count - counted if counted <= count else count) > 0:  # else another map of the same name
                self._cells.inc(new, tags={**self._job, "outcome": outcome})
        self._told[trial, progress.name] = counts
