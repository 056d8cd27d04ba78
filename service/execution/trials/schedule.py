"""The trials of a run that are to be run, as the serial runner and Ray Tune are given them."""

import threading
from dataclasses import dataclass

from service.execution import layout
from service.execution.progress import Progress
from service.execution.trials.early_stopping import EarlyStopping, early_stopping
from service.handle.rows import read_rows
from service.planning.plan import TrialPlan
from service.spec import JobSpec
from service.store import Folder


@dataclass(frozen=True)
class Schedule:
    """Which trials are to be run, where they write, and who follows them."""

    spec: JobSpec
    plans: list[TrialPlan]
    """all trials of the run"""
    todo: list[TrialPlan]
    """of these, those that have not ended"""
    folder: Folder
    """of the run"""
    progress: Progress
    stop: threading.Event
    """set when the run is to end, whatever is still to be done"""

    def early_stopping(self) -> EarlyStopping:
        """What the spec asks for, which has been shown what the trials that have ended (before a resume) had logged."""
        stopping = early_stopping(self.spec, self.plans)
        waiting = {plan.id for plan in self.todo}
        for plan in self.plans:
            if plan.id not in waiting:
                stopping.begin(plan)
                for row in read_rows(layout.trial(self.folder, plan.id)):
                    stopping.stops(plan, row)
        return stopping
