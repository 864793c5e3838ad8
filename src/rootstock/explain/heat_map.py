"""Heat maps: where in an image a model sees the evidence for its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rootstock.errors import ExplainError
from rootstock.explain.activation_maps import join_maps, map_evidence, read_grids
from rootstock.explain.occlusion import occlude
from rootstock.explain.subject import contrast, find_subject
from rootstock.model.predictor import Predictor
from rootstock.tasks.answer import HeatMapAnswer
from rootstock.tasks.task import Subject

Method = Literal["auto", "maps", "occlusion"]


@dataclass(frozen=True)
class HeatMap:
    """``evidence`` float32[h,w]: the contribution of each position of ``view`` uint8[S,S,3].

    It supports ``output`` if positive and opposes it if negative. ``method``: how it was computed.
    """

    output: str
    evidence: np.ndarray
    method: str
    view: np.ndarray

    @property
    def grid(self) -> np.ndarray:
        """uint8[h,w]: 255 at the strongest evidence, 0 for no or negative evidence."""
        positive = np.maximum(self.evidence, 0)
        top = float(positive.max())
        return np.round(255 * positive / top if top else positive).astype(np.uint8)

    def to_answer(self) -> HeatMapAnswer:
        """Return a form that JSON can hold."""
        return HeatMapAnswer(output=self.output, method=self.method, values=self.grid.tolist())


@dataclass(frozen=True)
class Explained:
    """One image's decision [...], features float32[D], and heat maps, the main one first."""

    decision: np.ndarray
    features: np.ndarray
    heat_maps: tuple[HeatMap, ...]

    @property
    def heat_map(self) -> HeatMap:
        """The main heat map."""
        return self.heat_maps[0]


def explain_images(
    predictor: Predictor,
    prepared: Sequence[np.ndarray],
    *,
    output: str = "",
    method: Method = "auto",
) -> list[Explained]:
    """Explain the answers for images prepared as uint8[V,S,S,3].

    ``output`` names what is explained. By default it is the whole answer, such as all labels
    that apply. ``maps`` are exact and need no extra forward pass. ``occlusion`` hides one part of
    the image after another, which works for every network and takes 64 forward passes. ``auto``
    uses maps if there are any.

    Raises:
        ExplainError: There is no such output, or maps were requested and there are none.
    """
    mapped = predictor.infer_maps(prepared)
    if method == "maps" and not mapped.maps:
        raise ExplainError(
            "this model has no activation maps: the features of its network are not means of maps, "
            "or it was trained by an older Rootstock",
            hint="use `rootstock explain --method occlusion`, or train the model again",
        )
    use_maps = bool(mapped.maps) and method != "occlusion"
    task, names = predictor.task, predictor.names
    explained = []
    for number, view in enumerate(views[0] for views in prepared):
        decision = mapped.decisions[number]
        asked = [output] if output else task.explained(decision, names)
        subjects = [find_subject(predictor, name) for name in asked]
        if use_maps:
            maps = [one[number] for one in mapped.maps]
            evidence = [_read_maps(predictor, maps, subject) for subject in subjects]
        else:
            evidence = occlude(predictor, view, subjects)
        kind = "maps" if use_maps else "occlusion"
        heat_maps = (HeatMap(*pair, kind, view) for pair in zip(asked, evidence, strict=True))
        explained.append(Explained(decision, mapped.features[number], tuple(heat_maps)))
    return explained


def _read_maps(predictor: Predictor, maps: Sequence[np.ndarray], subject: Subject) -> np.ndarray:
    """Return the evidence float32[h,w]; for several outputs, the length of their vector."""
    grids = read_grids(predictor.bundle.facts.tap)
    weights = contrast(predictor.head.linear_part(join_maps(maps, grids)), subject)
    parts = [map_evidence(maps, one, grids) for one in weights]
    return parts[0] if len(parts) == 1 else np.linalg.norm(parts, axis=0)
