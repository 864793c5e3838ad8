"""The head of a model as arrays, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rootstock.errors import BundleError
from rootstock.system.arrays import read_arrays


@dataclass(frozen=True)
class HeadLayers:
    """The linear layers of a head, with a ReLU between each two: weights [H,D] and biases [H]."""

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]

    @classmethod
    def read(cls, path: Path) -> HeadLayers:
        """Read the head of a network from its weights as safetensors.

        Raises:
            BundleError: the file is damaged, or contains no head.
        """
        try:
            arrays = read_arrays(path, prefix="head.")
            names = sorted(name for name in arrays if name.endswith("weight"))
            biases = tuple(arrays[name.replace("weight", "bias")] for name in names)
        except (KeyError, OSError, ValueError) as error:
            raise BundleError(
                f"{path} is damaged: {error}", hint="download the model again, or train it again"
            ) from None
        if not names:
            raise BundleError(f"{path} contains no head", hint="train the model again")
        return cls(tuple(arrays[name] for name in names), biases)

    def linear_part(self, features: np.ndarray) -> np.ndarray:
        """Return weights float32[K,D] of the outputs for the features [D] of one image.

        ``features`` are the input of the head; a map on a grid is flattened. A head with hidden
        layers is linear around each image, since each ReLU is open or closed.
        """
        product = None
        for number, (weights, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            product = weights if product is None else weights @ product
            features = weights @ features + bias
            if number + 1 < len(self.weights):
                is_open = features > 0
                product, features = product * is_open[:, None], features * is_open
        assert product is not None
        return product
