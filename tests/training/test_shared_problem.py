"""The features of a final head are prepared once, and the heads are the same as before."""

import numpy as np
import pytest

from rootstock.heads import linear
from rootstock.heads.linear import HeadProblem, share_problems
from rootstock.tasks import get_task
from rootstock.tasks.targets import Targets


@pytest.fixture
def prepared(monkeypatch):
    """How often features were prepared."""
    times = []
    standardise = linear._standardise
    monkeypatch.setattr(
        linear, "_standardise", lambda features: times.append(1) or standardise(features)
    )
    return times


def test_array_is_prepared_once_without_changing_heads(prepared):
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (
        np.eye(3)[labels] @ random.normal(size=(3, 8)) + random.normal(size=(60, 8))
    ).astype(np.float32)
    targets = Targets(labels, ("a", "b", "c"), labels)
    solver = get_task("single_label").head()

    def fit():
        unseen = solver.out_of_fold(features, targets, folds=3, l2=0.1, seed=0)
        return unseen, solver.fit(features, targets, l2=0.1)

    before, head = fit()
    assert len(prepared) == 2
    with share_problems():
        after, same = fit()
        assert len(prepared) == 3
        HeadProblem.of(features[:30])
        assert len(prepared) == 4
    HeadProblem.of(features)
    assert len(prepared) == 5  # nothing is kept after the block
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(same.weights, head.weights)
