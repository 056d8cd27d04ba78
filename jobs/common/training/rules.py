"""torch's optimizers as they compute in eager mode, which is all that is asked of them here.

Those of torch.optim load the compiler of torch at their first call, to tell it what not to compile: seconds of every
process that trains, most of which compile nothing. Networks may be compiled nevertheless: their compiler is loaded
where they are.
"""

import inspect
from typing import TypeVar

import torch
from torch.optim import Optimizer

Rule = TypeVar("Rule", bound=Optimizer)


def eager(rule: type[Rule]) -> type[Rule]:
    """An optimizer of torch whose methods are the same, without what is around them for the compiler."""
    bare = {
        name: inspect.unwrap(getattr(rule, name))
        for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    }
    step = torch.no_grad()(inspect.unwrap(rule.step))
    return type(rule.__name__, (rule,), {**bare, "step": step, "__doc__": rule.__doc__})


Adadelta = eager(torch.optim.Adadelta)
Adagrad = eager(torch.optim.Adagrad)
Adam = eager(torch.optim.Adam)
Adamax = eager(torch.optim.Adamax)
AdamW = eager(torch.optim.AdamW)
ASGD = eager(torch.optim.ASGD)
LBFGS = eager(torch.optim.LBFGS)
NAdam = eager(torch.optim.NAdam)
RAdam = eager(torch.optim.RAdam)
RMSprop = eager(torch.optim.RMSprop)
SGD = eager(torch.optim.SGD)
