"""What a trial fixes before it begins, and what is known of one that does not come to its end."""

from pathlib import Path

import pytest
import torch

from service import spec
from service.execution import layout
from service.execution.fan_out.mapping import InProcess
from service.execution.trials.trial import execute, record_from_driver, set_numerics
from service.handle.rows import Row
from service.planning import plan
from service.spec import Resources
from service.store import open_store


def test_what_results_depend_on_is_that_of_the_spec_whatever_was_set_before() -> None:
    for threads, tf32, convolutions in ((2, False, "none"), (1, True, "tf32")):
        torch.backends.cuda.matmul.allow_tf32 = True
        set_numerics(Resources(threads=threads, tf32=tf32))
        assert torch.get_num_threads() == threads and torch.get_deterministic_debug_mode() == 1
        assert torch.backends.cudnn.conv.fp32_precision == convolutions, "none: float32 throughout"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert Resources().tf32, "as torch has it, and with it the code of papers"


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize(
    ("careful", "first", "second", "warned"),
    [
        (True, None, 5, True),
        (True, 5, 7, True),  # said before the checkpoint, which has it
        (True, 3, 5, True),  # said after it, and again
        (False, 5, 7, True),  # all begins anew
        (False, 5, 2, False),  # and does not come as far
    ],
)
def test_a_trial_that_is_stopped_has_said_what_it_said(
    careful: bool, first: int | None, second: int, warned: bool, tmp_path: Path
) -> None:
    """first: step at which it is interrupted. second: at which it is stopped, when it goes on."""
    job_spec = spec.build(
        {"job": "tests.service.walk", "params": {"careful": careful, "warn_at": 2}, "store": str(tmp_path)}
    )
    (trial,) = plan.trials(job_spec)
    folder = open_store(str(tmp_path)) / "runs" / "one"

    for last in [first, second]:
        if last is None:
            continue

        def report(index: int, row: Row, total_steps: int | None, last: int = last) -> None:
            if row["step"] == last:
                raise Interrupted

        with pytest.raises(Interrupted):
            execute(trial, folder, report, InProcess())
    ended = record_from_driver(trial, layout.trial(folder, trial.id), "stopped", [], 0.0, None)
    assert ended.warnings == ("the walk warns at step 2",) * warned
    assert ended.notes == ("the walk notes step 2",) * warned
