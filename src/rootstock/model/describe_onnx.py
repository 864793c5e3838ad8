"""Metadata of an ONNX file, for people and programs that have only the file."""

from __future__ import annotations

import json
from pathlib import Path

from rootstock.model.bundle import BundleFacts

USE = (
    "Decode the image upright to RGB, bring it to the input size as `preprocess` says (geometry "
    "crop: resize the short side to input_size / crop_pct, cut the centre; pad: resize the long "
    "side, pad with the mean; squash: resize both), divide by 255, subtract mean, divide by std, "
    "and pass it as float32 [N,3,S,S] named `images`. `logits` are in the order of `names`; for "
    "one class per image, probabilities are the softmax of logits / temperature."
)


def describe_onnx(path: Path, facts: BundleFacts) -> None:
    """Write names, preprocessing, calibration, licence and use into the file's metadata."""
    import onnx

    model = onnx.load(str(path))
    card = facts.card
    onnx.helper.set_model_props(
        model,
        {
            "task": facts.task,
            "names": json.dumps(facts.names, ensure_ascii=False),
            "preprocess": json.dumps(facts.preprocess),
            "calibration": json.dumps(facts.calibration),
            "temperature": json.dumps(facts.calibration.get("temperature", 1.0)),
            "backbone": str(card.get("name", "")),
            "licence": str(card.get("license", "")),
            "use": USE,
        },
    )
    model.producer_name = "rootstock"
    onnx.save(model, str(path))
