"""Deep thinking: networks that solve harder problems than they were trained on by thinking longer.

A recurrent network learns a task on small instances with a limited number of iterations. Afterwards it is given larger
instances and more iterations: with recall of the inputs and the progressive loss its answers get better and stay so;
without them they collapse ("overthinking").

Sources: Schwarzschild et al. 2021, "Can You Learn an Algorithm?"; Bansal et al. 2022, "End-to-end Algorithm Synthesis
with Recurrent Networks: Logical Extrapolation Without Overthinking".
"""

from typing import Any, Self

import torch
from pydantic import Field, JsonValue, model_validator
from torch import nn

from jobs.common.params import StudyParams
from jobs.deep_thinking import figures
from jobs.deep_thinking.evaluation import EvaluationParams, Evaluation, evaluate, stability, thoughts_of_one
from jobs.deep_thinking.networks import ARCHITECTURES, network
from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.problems.base import Problem
from jobs.deep_thinking.training import TrainingParams, train
from service.errors import InputError
from service.models import CardDraft, TensorSpec
from service.run import Run, Trial
