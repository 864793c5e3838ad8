"""From a table of images to a model, for any task: settings and one run of all stages."""

import io

import numpy as np
from PIL import Image

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.model.bundle import read_bundle
from rootstock.model.predictor import Predictor
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.ports.spread import InProcess
from rootstock.workflow.run import run_all
from tests.bundles import tiny_backbone


def png(pixels):
    """Return uint8[H,W,3] as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def configure(table, *more):
    """Return settings for few images and a tiny backbone."""
    return load_config(
        None,
        overrides=[
            f"data.root={table}",
            f"backbone.weights={tiny_backbone().card.weights}",
            "assess.probe_folds=2",
            "features.batch_size=16",
            "train.l2_grid=[0.0001,0.01]",
            "plan.race=never",
            "data.workers=1",
            *more,
        ],
    )


def go(config, out, registry):
    """Run all stages; return the folders."""
    paths = Paths(out)
    run_all(
        config,
        paths,
        runs=NullRunLogger(),
        searcher=SequentialSearcher(),
        racer=SequentialSearcher(),
        spreader=InProcess(),
        registry=registry,
    )
    return paths


def check_twin(paths):
    """Check that the int8 twin was measured by the task's own score, and answers if it was kept."""
    bundle = read_bundle(paths.model)
    figures = bundle.facts.int8.figures
    predictor = Predictor(bundle)
    assert figures.metric == predictor.task.score
    assert np.isfinite([figures.score, figures.score_float32, *figures.loss_interval]).all()
    if bundle.has_twin:
        twin = Predictor(bundle, precision="int8")
        content = bundle.golden_bytes(bundle.golden[0])
        assert twin.predict([content])[0].error is None
    else:
        assert any(why in bundle.facts.int8.reason for why in ("beyond chance", "do not exclude"))
