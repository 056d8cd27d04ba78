"""Ways of training by name. Another one is another module here and another line in MethodParams."""

from typing import Annotated

from pydantic import Field

from jobs.common.training.adversarial.methods.fgsm_rs import RandomStartStep
from jobs.common.training.adversarial.methods.free import Free
from jobs.common.training.adversarial.methods.natural import Natural
from jobs.common.training.adversarial.methods.pgd import ProjectedGradient
from jobs.common.training.adversarial.methods.trades import Trades

MethodParams = Annotated[Natural | Free | ProjectedGradient | RandomStartStep | Trades, Field(discriminator="kind")]
