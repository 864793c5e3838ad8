"""Heat maps: where in an image a model sees the evidence for its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rootstock.errors import ExplainError
from rootstock.explain.activation_maps import contrast, map_evidence
from rootstock.explain.occlusion import occlude
from rootstock.model.predictor import Predictor
from rootstock.tasks.answer import HeatMapAnswer

Method = Literal["auto", "maps", "occlusion"]


@dataclass(frozen=True)
class HeatMap:
    """``evidence`` float32[h,w]: what each position of ``view`` uint8[S,S,3] adds to ``output``.

    Negative values speak against it. ``method`` is how it was found.
    """

    output: str
    evidence: np.ndarray
    method: str
    view: np.ndarray

    @property
    def grid(self) -> np.ndarray:
        """uint8[h,w]: 255 at the strongest evidence, 0 where there is none or it is negative."""
        positive = np.maximum(self.evidence, 0)
        top = float(positive.max())
        return np.round(255 * positive / top if top else positive).astype(np.uint8)

    def to_answer(self) -> HeatMapAnswer:
        """Return what JSON holds."""
        return HeatMapAnswer(output=self.output, method=self.method, values=self.grid.tolist())


@dataclass(frozen=True)
class Explained:
    """One image's decision [...], features float32[D] and heat map."""

    decision: np.ndarray
    features: np.ndarray
    heat_map: HeatMap


def explain_images(
    predictor: Predictor,
    prepared: Sequence[np.ndarray],
    *,
    output: str = "",
    method: Method = "auto",
) -> list[Explained]:
    """Explain the answers for images prepared as uint8[V,S,S,3].

    ``output`` names what is explained; by default it is what the model answered. ``maps`` are exact
    and cost no forward pass of their own; ``occlusion`` hides one part of the image after the
    other, which works for every network and takes 64 forward passes. ``auto``: maps if there are
    any.

    Raises:
        ExplainError: there is no such output, or only maps were asked for and there are none.
    """
    mapped = predictor.infer_maps(prepared)
    if method == "maps" and not mapped.maps:
        raise ExplainError(
            "this model has no activation maps: the features of its network are not means of maps, "
            "or it was trained by an older Rootstock",
            hint="use `rootstock explain --method occlusion`, or train the model again",
        )
    use_maps = bool(mapped.maps) and method != "occlusion"
    explained = []
    for number, view in enumerate(views[0] for views in prepared):
        decision, features = mapped.decisions[number], mapped.features[number]
        index = _find_output(predictor, output, decision)
        if use_maps:
            weights = predictor.head.linear_part(features)
            chosen = contrast(weights, index) if predictor.task.competing else weights[index]
            evidence = map_evidence([one[number] for one in mapped.maps], chosen)
        else:
            evidence = occlude(predictor, view, index)
        kind = "maps" if use_maps else "occlusion"
        heat_map = HeatMap(predictor.names[index], evidence, kind, view)
        explained.append(Explained(decision, features, heat_map))
    return explained


def _find_output(predictor: Predictor, output: str, decision: np.ndarray) -> int:
    names = predictor.names
    if not output:
        return predictor.task.main_output(decision)
    if output not in names:
        shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
        raise ExplainError(f"the model has no output {output!r}", hint=f"it has: {shown}")
    return names.index(output)
