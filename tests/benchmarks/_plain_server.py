"""What one would write without Assay: models behind FastAPI, a request at a time. Arguments: store, port, models."""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from service import models
from service.store import Folder, open_store


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]
    parameters: dict[str, int] = {}


def main() -> None:
    store, port, *names = sys.argv[1:]
    torch.set_num_threads(1)
    app = FastAPI()
    for name in names:
        _add(app, open_store(store), name)
    uvicorn.run(app, port=int(port), log_level="warning")


def _add(app: FastAPI, store: Folder, name: str) -> None:
    network = models.load(store, models.find(store, name))

    @app.post(f"/v2/models/{name}/infer")
    def infer(request: Request) -> dict[str, object]:
        (tensor,) = request.inputs
        inputs = torch.tensor(tensor.data).view(tensor.shape)
        with torch.inference_mode():
            prediction = network(inputs, request.parameters["iterations"])[0].argmax(1)
        output = {"name": "prediction", "datatype": "INT64", "shape": list(prediction.shape)}
        return {"model_name": name, "outputs": [{**output, "data": prediction.flatten().tolist()}]}


if __name__ == "__main__":
    main()
