"""Ridge regression with a penalty chosen by leave-one-out."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from rootstock.heads import ridge
from rootstock.heads.linear import HeadProblem
from rootstock.heads.ridge import PENALTIES, fit_ridge


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    features = random.normal(3, 2, (60, 150)).astype(np.float32)
    weights = random.normal(0, 1, (150, 2)) * (np.arange(150) < 12)[:, None]
    values = features @ weights + random.normal(0, 3, (60, 2)) + 5
    return features, values.astype(np.float32)


def scale(features):
    """Scale features as in a fit, with the shrunken deviations of few images."""
    problem = HeadProblem.of(features)
    return (features - problem.mean) / problem.scale


def test_head_equals_cross_validated_scikit_learn(data):
    features, values = data
    scaled = scale(features)
    penalties = [share * np.square(scaled).sum() / len(scaled) for share in PENALTIES]
    theirs = RidgeCV(penalties).fit(scaled, values)
    np.testing.assert_allclose(
        fit_ridge(features, values).outputs(features), theirs.predict(scaled), rtol=1e-3, atol=0.02
    )


def test_large_problems_use_the_penalty_of_a_part(data, monkeypatch):
    random = np.random.default_rng(1)
    features = random.normal(0, 1, (90, 20)).astype(np.float32)
    values = (features[:, :2] + random.normal(0, 0.1, (90, 2))).astype(np.float32)
    monkeypatch.setattr(ridge, "MAX_AXES", 45)
    head = fit_ridge(features, values, penalties=[0.1])
    scaled, part = scale(features), scale(features[::2])
    theirs = Ridge(0.1 * np.square(part).sum() / len(part)).fit(scaled, values)
    np.testing.assert_allclose(head.outputs(features), theirs.predict(scaled), atol=1e-3)
