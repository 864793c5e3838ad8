"""The other sides of serving.py: a naive FastAPI handler, LitServe, and a model for MLflow."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from PIL import Image

MODEL = Path(os.environ["MODEL"])
FACTS = json.loads((MODEL / "bundle.json").read_text())


def prepare(content: bytes) -> np.ndarray:
    """Convert an encoded image to float32[1,3,S,S] in the usual way."""
    recipe = FACTS["preprocess"]
    size, short = recipe["input_size"], round(recipe["input_size"] / recipe["crop_pct"])
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = short / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), 3)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255
    pixels = (pixels - np.array(recipe["mean"])) / np.array(recipe["std"])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def answer(logits: np.ndarray) -> dict[str, Any]:
    """Return the most probable label."""
    shares = np.exp(logits[0] - logits[0].max())
    best = int(shares.argmax())
    return {"label": FACTS["classes"][best], "probability": float(shares[best] / shares.sum())}


Forward = Callable[[np.ndarray], np.ndarray]
"""float32[1,3,S,S] in, logits float32[1,K] out."""


def session(threads: int) -> Forward:
    """Run the model with ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    network = onnxruntime.InferenceSession(str(MODEL / "model.onnx"), options)
    return lambda images: network.run(["logits"], {"images": images})[0]


def eager(threads: int | None = None) -> Forward:
    """Run the model with PyTorch."""
    from rootstock.model.bundle import read_bundle
    from rootstock.model.engine import Way, open_engine

    network = open_engine(read_bundle(MODEL), Way("torch"), threads=threads)
    return lambda images: network(images).logits


def make_naive() -> Any:
    """Create the handler of most tutorials: PyTorch in an `async def`."""
    app, forward = FastAPI(), eager()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return answer(forward(prepare(await request.body())))

    return app


if importlib.util.find_spec("litserve"):
    import litserve

    class Api(litserve.LitAPI):
        """The example in LitServe's documentation, with ONNX Runtime or PyTorch (ENGINE)."""

        def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's name
            self.forward = eager(1) if os.environ["ENGINE"] == "torch" else session(1)

        def decode_request(self, request):  # type: ignore[no-untyped-def] - LitServe reads it
            return prepare(base64.b64decode(request["image"]))

        def predict(self, images: Any) -> Any:
            return self.forward(images)

        def encode_response(self, output: Any) -> dict[str, Any]:
            return answer(output)


def serve_litserve(port: int) -> None:
    """Run LitServe with one worker for each of two cores."""
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")


def pack(folder: str) -> None:
    """Write the ONNX file as a model that `mlflow models serve` understands."""
    import mlflow
    import onnx
    from mlflow.models import infer_signature

    size = FACTS["preprocess"]["input_size"]
    example = np.zeros((1, 3, size, size), np.float32)
    signature = infer_signature({"images": example})
    mlflow.onnx.save_model(onnx.load(MODEL / "model.onnx"), folder, signature=signature)


if __name__ == "__main__":
    if sys.argv[1] == "litserve":
        serve_litserve(int(sys.argv[2]))
    else:
        pack(sys.argv[2])
elif os.environ.get("NAIVE"):
    naive = make_naive()
