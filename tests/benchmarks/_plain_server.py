"""What one would write without Assay: a model behind FastAPI, a request at a time. Arguments: store, model, port."""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from service import models
from service.store import open_store


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]
    parameters: dict[str, int] = {}


def main() -> None:
    store, name, port = open_store(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    card = models.find(store, name)
    network = models.load(store, card)
    app = FastAPI()

    @app.post(f"/v2/models/{name}/infer")
    def infer(request: Request) -> dict[str, object]:
        (tensor,) = request.inputs
        inputs = torch.tensor(tensor.data).view(tensor.shape)
        with torch.inference_mode():
            prediction = network(inputs, request.parameters["iterations"])[0].argmax(1)
        output = {"name": "prediction", "datatype": "INT64", "shape": list(prediction.shape)}
        return {"model_name": name, "outputs": [{**output, "data": prediction.flatten().tolist()}]}

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    main()
