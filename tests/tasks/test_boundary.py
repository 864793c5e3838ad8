"""Knowledge about labels stays in `tasks/`: no other module computes with classes."""

import ast
from pathlib import Path

import pytest

import rootstock

PACKAGE = Path(rootstock.__file__).parent
CLASS_WORDS = {
    "argmax",
    "bincount",
    "confusion_matrix",
    "cross_entropy",
    "fit_temperature",
    "log_softmax",
    "one_hot",
    "softmax",
}
"""Names that turn outputs or targets into classes."""
ELSEWHERE = {
    # The original classifier of the backbone, whose classes are not the user's.
    "assess/similarity.py": {"softmax"},
    # The position of the strongest activation in a map.
    "explain/inside.py": {"argmax"},
    # The largest point of a histogram of sizes, and the sign of a principal axis.
    "plots/data.py": {"argmax"},
    "plots/review.py": {"argmax"},
    # The strongest of several equally good penalties.
    "training/penalty.py": {"argmax"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def words_of(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize(
    "path", [path for path in MODULES if not relative(path).startswith("tasks/")], ids=relative
)
def test_no_module_outside_tasks_computes_with_classes(path):
    allowed = ELSEWHERE.get(relative(path), set())
    assert not (CLASS_WORDS & set(words_of(path))) - allowed


@pytest.mark.parametrize(
    "path", [path for path in MODULES if not relative(path).startswith("tasks/")], ids=relative
)
def test_no_module_outside_tasks_knows_a_task(path):
    """Only the registration, the client's default, and formats older than tasks name one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    ]
    assert not [name for name in imports if name.startswith("rootstock.tasks.single_label")]


def test_the_exceptions_are_needed():
    for name, words in ELSEWHERE.items():
        assert words <= set(words_of(PACKAGE / name)), f"{name} does without {words}"
