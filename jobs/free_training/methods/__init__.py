"""Ways of training by name. Another one is another module here and another line in MethodParams."""

from typing import Annotated

from pydantic import Field

from jobs.free_training.methods.fgsm_rs import RandomStartStep
from jobs.free_training.methods.free import Free
from jobs.free_training.methods.natural import Natural
from jobs.free_training.methods.pgd import ProjectedGradient
from jobs.free_training.methods.trades import Trades

MethodParams = Annotated[Natural | Free | ProjectedGradient | RandomStartStep | Trades, Field(discriminator="kind")]
