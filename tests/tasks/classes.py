"""Short ways to fit heads for class numbers, like `SoftmaxSolver`."""

import numpy as np

from rootstock.tasks.single_label.learning import SoftmaxSolver
from rootstock.tasks.targets import Targets


def classes(labels, n_classes=None):
    """Return the targets of class numbers int[N]."""
    labels = np.asarray(labels, np.int64)
    names = tuple(f"class {number}" for number in range(n_classes or int(labels.max()) + 1))
    return Targets(labels, names, labels)


def fit_linear_head(features, labels, *, l2, n_classes, weighting="none"):
    return SoftmaxSolver(weighting).fit(features, classes(labels, n_classes), l2=l2)


def walk_heads(features, labels, *, strengths, n_classes, weighting="none", **options):
    targets = classes(labels, n_classes)
    return SoftmaxSolver(weighting).walk(features, targets, strengths=strengths, **options)


def fit_head_path(features, labels, *, strengths, n_classes):
    """Return one head per strength, in their order."""
    heads = dict(walk_heads(features, labels, strengths=strengths, n_classes=n_classes))
    return [heads[strength] for strength in strengths]


def cross_validate_path(features, labels, **options):
    return SoftmaxSolver().cross_validate(features, classes(labels), **options)


def cross_validate(features, labels, **options):
    return SoftmaxSolver().probe(features, classes(labels), **options)


def fit_mlp_head(features, labels, *, n_classes, weighting="none", **options):
    return SoftmaxSolver(weighting).fit_hidden(features, classes(labels, n_classes), **options)
