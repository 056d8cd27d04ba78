"""A job for the tests of the service that ends with whatever number it is told to, NaN as well."""

import torch
from pydantic import BaseModel, Field

from service.models import CardDraft
from service.run import Run


class Params(BaseModel):
    """Numbers."""

    score: str = Field("1", description="the metric of the last step, as text")
    weight: str = Field("1", description="what its model is made of, as text")


def run(params: Params, run: Run) -> None:
    for step, score in enumerate((1.0, float(params.score))):
        run.log(step=step, score=score)
    run.table("scores", [{"score": score}])
    draft = CardDraft(
        architecture="tests.service.walk:linear",
        arguments={"size": 1},
        study="numbers",
        task="numbering",
        inputs=(),
        outputs=(),
        settings={"threshold": score, "classes": ["NaN"]},
        metrics={"score": score},
        description="a number",
    )
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(float(params.weight))
    run.save_model("number", model, draft)
