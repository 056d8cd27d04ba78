"""What a trial fixes before it begins."""

import torch

from service.execution.trials.trial import set_numerics
from service.spec import Resources


def test_what_results_depend_on_is_that_of_the_spec_whatever_was_set_before() -> None:
    for threads, tf32, convolutions in ((2, False, "none"), (1, True, "tf32")):
        torch.backends.cuda.matmul.allow_tf32 = True
        set_numerics(Resources(threads=threads, tf32=tf32))
        assert torch.get_num_threads() == threads and torch.get_deterministic_debug_mode() == 1
        assert torch.backends.cudnn.conv.fp32_precision == convolutions, "none: float32 throughout"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert Resources().tf32, "as torch has it, and with it the code of papers"
