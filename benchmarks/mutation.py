"""Measure the share of small changes to the code that tests notice (`make mutation`).

A mutant changes one place: an operator, a condition, a number, a keyword argument, a returned
value, or a statement. A seed draws a sample from each file. Each mutant runs with the tests that
execute the changed statement, which one traced test run finds. A trial is a fork of a process with
the heavy libraries loaded, and works on a copy of the project.

Only behaviour is changed, not texts, rounding digits, or the look of pictures: another constant,
sentence, or line width is another decision, not a fault.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/mutation.json"
EQUIVALENT = ROOT / "benchmarks/mutation_equivalent.json"
"""Mutants that behave like the original code, each with the reason."""
FOLDERS = ("data", "heads", "model", "plan", "tasks", "train")
OTHER_TESTS = ("evaluate", "review", "test_formats.py")
"""More tests that run this code."""
COPIED = ("src", "tests", "pipelines", "services", "tools", "pyproject.toml", "params.yaml")
LIBRARIES = ("torch", "torchvision", "timm", "sklearn.linear_model", "pyarrow", "onnxruntime")
TEST_SECONDS = 30.0
"""Time limit for all tests of one mutant."""
SLOWDOWN, STARTUP_SECONDS = 4.0, 60.0
"""A mutant that takes longer counts as noticed: it loops."""
SKIPPED = (
    "hint", "desc", "unit", "disable", "description", "annotation", "returns", "strict", "encoding",
)  # fmt: skip
"""Fields and keywords that are texts, or checks that hold while the code is right."""
SWAPS = {
    "Add": ast.Sub, "Sub": ast.Add, "Mult": ast.Div, "Div": ast.Mult, "FloorDiv": ast.Mult,
    "Mod": ast.Mult, "Pow": ast.Mult, "BitOr": ast.BitAnd, "BitAnd": ast.BitOr, "Lt": ast.LtE,
    "LtE": ast.Lt, "Gt": ast.GtE, "GtE": ast.Gt, "Eq": ast.NotEq, "NotEq": ast.Eq, "Is": ast.IsNot,
    "IsNot": ast.Is, "In": ast.NotIn, "NotIn": ast.In, "And": ast.Or, "Or": ast.And,
}  # fmt: skip
Place = tuple[str, int]
"""A file below src and one of its lines."""


class Change(NamedTuple):
    """One change of a syntax tree, and the lines of its statement."""

    lines: range
    what: str
    apply: Callable[[], None]


class Mutant(NamedTuple):
    """Apply change ``number`` of a file."""

    file: str
    number: int
    change: Change


def list_changes(tree: ast.Module) -> Iterator[Change]:
    """Return all changes in the order of the text; each changes ``tree`` in place."""

    def visit(node: Any, put: Callable[[ast.AST], None], lines: range) -> Iterator[Change]:
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            lines = range(node.lineno, max(last, node.lineno) + 1)
        for what, apply in list_node_changes(node, put):
            yield Change(lines, what, apply)
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.arguments):
            return
        for name, value in ast.iter_fields(node):
            if name in (*SKIPPED, "decorator_list"):
                continue
            for number, child in enumerate(value if isinstance(value, list) else [value]):

                def put_child(
                    new: ast.AST, name: str = name, value: Any = value, number: int = number
                ) -> None:
                    if isinstance(value, list):
                        value[number] = new
                    else:
                        setattr(node, name, new)

                word = getattr(child, "arg", "") in SKIPPED
                if isinstance(child, ast.AST) and not word and not is_digits(node, name, number):
                    yield from visit(child, put_child, lines)

    def find_functions(node: ast.AST) -> Iterator[Change]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                yield from visit(child, lambda _: None, range(0))
            else:
                yield from find_functions(child)

    yield from find_functions(tree)


def list_node_changes(
    node: Any, put: Callable[[ast.AST], None]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the changes of one node; ``put`` replaces it."""

    def change(name: str, value: Any) -> Callable[[], None]:
        return lambda: setattr(node, name, value)

    operator = type(getattr(node, "op", None)).__name__
    if operator in SWAPS and isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        yield f"{operator} -> {SWAPS[operator].__name__}", change("op", SWAPS[operator]())
    if isinstance(node, ast.Compare):
        operator = type(node.ops[0]).__name__
        other = SWAPS[operator]
        yield f"{operator} -> {other.__name__}", change("ops", [other(), *node.ops[1:]])
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} -> {not node.value}", change("value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        new = node.value + 1 if isinstance(node.value, int) else 2 * node.value or 1.0
        yield f"{node.value} -> {new}", change("value", new)
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition negated", change("test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "sign or `not` removed", lambda: put(node.operand)
    if isinstance(node, ast.Return) and not isinstance(node.value, ast.Constant | None):
        yield "returns None", change("value", ast.Constant(None))
    if is_removable(node):
        yield "statement removed", lambda: put(ast.Pass())
    for number, keyword in enumerate(getattr(node, "keywords", ())):
        if isinstance(node, ast.Call) and keyword.arg and keyword.arg not in SKIPPED:
            rest = node.keywords[:number] + node.keywords[number + 1 :]
            yield f"without {keyword.arg}=", change("keywords", rest)


def is_digits(node: ast.AST, name: str, number: int) -> bool:
    """Return whether a part of a node sets the number of digits for rounding."""
    rounding = isinstance(node, ast.Call) and ast.unparse(node.func) == "round"
    return rounding and (name, number) == ("args", 1)


def is_removable(node: ast.AST) -> bool:
    """Return whether a statement has an effect, other than texts, that tests can notice."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func).split(".")[0] not in ("log", "_log", "bar", "warnings")
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    return isinstance(node, ast.Raise | ast.AugAssign | ast.Break | ast.Continue)


def mutate(text: str, number: int) -> str:
    """Return a file's text with one of its changes."""
    tree = ast.parse(text)
    list(list_changes(tree))[number].apply()
    return ast.unparse(ast.fix_missing_locations(tree))


class Tracer:
    """A pytest plugin that notes the lines that each test runs, its seconds, and failures.

    Lines run by a fixture with a wider scope count for every test that uses it.
    """

    def __init__(self, source: Path) -> None:
        self.prefix = f"{source}/"
        self.lines: set[Place] = set()
        self.tests: dict[str, tuple[float, set[Place]]] = {}
        self.fixtures: dict[tuple[str, str], set[Place]] = {}

    def _trace(self, frame: Any, *_: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(self.prefix):
            return None
        self.lines.add((file[len(self.prefix) :], frame.f_lineno))
        return self._trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.lines, started = set(), time.monotonic()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            for (base, name), lines in self.fixtures.items():
                if item.nodeid.startswith(base) and name in getattr(item, "fixturenames", ()):
                    self.lines |= lines
            if item.nodeid not in self.tests:  # only if it did not fail
                self.tests[item.nodeid] = (time.monotonic() - started, self.lines)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        if fixturedef.scope == "function":
            return (yield)
        outer, self.lines = self.lines, set()
        try:
            return (yield)
        finally:
            self.fixtures[fixturedef.baseid, fixturedef.argname] = self.lines
            self.lines = outer | self.lines

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            print("fails without a mutant:", report.nodeid)
            self.tests[report.nodeid] = (0.0, set())


def run_forked(work: Callable[[], int], seconds: float, output: Path) -> int | None:
    """Return the exit code of ``work`` in a fork, or None if it takes longer."""
    child = os.fork()
    if not child:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os._exit(work())
    deadline, done, status = time.monotonic() + seconds, 0, 0
    while not done and time.monotonic() < deadline:
        time.sleep(0.05)
        done, status = os.waitpid(child, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and any process that a test left running
    if done:
        return os.waitstatus_to_exitcode(status)
    os.waitpid(child, 0)
    return None


def run_pytest(*arguments: str, plugins: list[Any] | None = None) -> int:
    """Run pytest in this process."""
    options = ["-q", "-p", "no:cacheprovider", "-o", "pythonpath="]
    return int(pytest.main([*options, *arguments], plugins=plugins))


class Project:
    """A copy of the project in which files are changed, tested, and restored."""

    def __init__(self, home: Path) -> None:
        self.home, self.root, self.source = home, home / "a/project", home / "a/project/src"
        for name in COPIED:
            if (ROOT / name).is_dir():
                skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(ROOT / name, self.root / name, ignore=skipped)
            elif (ROOT / name).is_file():
                shutil.copy(ROOT / name, self.root / name)
        os.chdir(self.root)
        sys.path[:0] = [str(self.source), str(self.root)]
        sys.dont_write_bytecode = True
        os.environ |= {"PYTHONPATH": f"{self.source}:{self.root}", "OMP_NUM_THREADS": "1"}
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "1"}

    def text(self, file: str) -> str:
        """A file below src."""
        return (self.source / file).read_text(encoding="utf-8")

    def draw_sample(self, folders: list[str], count: int, seed: int) -> list[Mutant]:
        """Return about ``count`` mutants, at least three per file."""
        paths = [path for f in folders for path in (self.source / "rootstock" / f).rglob("*.py")]
        files = sorted(str(p.relative_to(self.source)) for p in paths if p.name != "plots.py")
        changes = {file: list(list_changes(ast.parse(self.text(file)))) for file in files}
        total = sum(map(len, changes.values()))
        sample = []
        for file, every in changes.items():
            share = min(len(every), max(3, round(count * len(every) / total)))
            numbers = random.Random(f"{seed} {file}").sample(range(len(every)), share)
            sample += [Mutant(file, number, every[number]) for number in sorted(numbers)]
        return sample

    def trace_tests(self, folders: list[str]) -> dict[str, tuple[float, set[Place]]]:
        """Run the tests of the folders once; return seconds and lines of each that passes."""
        record = self.home / "trace.json"

        def work() -> int:
            tracer = Tracer(self.source)
            names = [*folders, *OTHER_TESTS]
            paths = [f"tests/{name}" for name in names if Path("tests", name).exists()]
            run_pytest("-m", "not slow and not gpu and not integration", *paths, plugins=[tracer])
            tests = {name: (s, sorted(lines)) for name, (s, lines) in tracer.tests.items() if lines}
            record.write_text(json.dumps(tests), encoding="utf-8")
            return 0

        if run_forked(work, 3600, self.home / "output") != 0:
            sys.exit((self.home / "output").read_text(encoding="utf-8")[-3000:])
        tests = json.loads(record.read_text(encoding="utf-8"))
        return {name: (s, {(f, line) for f, line in lines}) for name, (s, lines) in tests.items()}

    def is_noticed(self, mutant: Mutant, tests: list[str], seconds: float) -> bool:
        """Return whether a test fails, or all of them take far longer."""
        path, text = self.source / mutant.file, self.text(mutant.file)
        try:
            path.write_text(mutate(text, mutant.number), encoding="utf-8")
            limit = STARTUP_SECONDS + SLOWDOWN * seconds
            return run_forked(lambda: run_pytest("-x", *tests), limit, self.home / "output") != 0
        finally:
            path.write_text(text, encoding="utf-8")


def choose_tests(
    mutant: Mutant, tests: dict[str, tuple[float, set[Place]]]
) -> tuple[list[str], float]:
    """Return the tests that run the statement, those of its file first, and their seconds.

    If no test runs it in this process, slow tests of its folder may run it in another one.
    """
    places = {(mutant.file, line) for line in mutant.change.lines}
    mirror = "tests/" + "/test_".join(mutant.file.removeprefix("rootstock/").rsplit("/", 1))
    running = [name for name in tests if places & tests[name][1]]
    running.sort(key=lambda name: (not name.startswith(mirror), tests[name][0]))
    if not running:
        folder = mirror.partition("/test_")[0]
        running = [name for name in tests if name.startswith(folder) and tests[name][0] > 1]
        running.sort(key=lambda name: -tests[name][0])
    chosen, total = [], 0.0
    for name in running:
        if not chosen or total + tests[name][0] < TEST_SECONDS:
            chosen.append(name)
            total += tests[name][0]
    return chosen, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folders", nargs="*", help=f"folders of src/rootstock; default: {' '.join(FOLDERS)}"
    )
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    known = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    equivalent = {(one["file"], one["code"], one["change"]) for one in known}
    for library in LIBRARIES:
        __import__(library)
    from stamp import describe_run  # in the folder of the script

    facts = describe_run("make mutation") | {"mutants": options.mutants, "seed": options.seed}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Counter[str]] = {}
    missed = []
    with tempfile.TemporaryDirectory(prefix="rootstock-mutation-") as home:
        project = Project(Path(home).resolve())
        folders = [
            name for name in options.folders or FOLDERS if (ROOT / "src/rootstock" / name).is_dir()
        ]
        sample = project.draw_sample(folders, options.mutants, options.seed)
        tests = project.trace_tests(folders)
        print(f"{len(sample)} mutants, {len(tests)} tests", flush=True)
        for mutant in sample:
            lines = project.text(mutant.file).splitlines()
            code = " ".join(lines[number - 1].strip() for number in mutant.change.lines)
            chosen, seconds = choose_tests(mutant, tests)
            if (mutant.file, code, mutant.change.what) in equivalent:
                outcome = "equivalent"
            elif chosen and project.is_noticed(mutant, chosen, seconds):
                outcome = "noticed"
            else:
                outcome = "missed"
                place = {"file": mutant.file, "line": mutant.change.lines.start}
                missed.append(place | {"change": mutant.change.what, "code": code})
                missed[-1]["tests"] = len(chosen)
                print(json.dumps(missed[-1]), flush=True)
            outcomes.setdefault(mutant.file.split("/")[1], Counter())[outcome] += 1
            text = json.dumps(
                facts | {"scores": score_folders(outcomes), "missed": missed}, indent=1
            )
            options.out.write_text(text + "\n", encoding="utf-8")
    for name, score in score_folders(outcomes).items():
        counts = f"{score['noticed']} noticed, {score['missed']} missed"
        print(f"{name:8} {score['score']:5.0%}: {counts}, {score['equivalent']} equivalent")


def score_folders(outcomes: dict[str, Counter[str]]) -> dict[str, dict[str, float]]:
    """Return the outcomes per folder and in total, with the share that was noticed."""
    scores = {}
    for name, counts in {**outcomes, "all": sum(outcomes.values(), Counter())}.items():
        share = counts["noticed"] / max(1, counts["noticed"] + counts["missed"])
        kinds = ("noticed", "missed", "equivalent")
        scores[name] = {kind: counts[kind] for kind in kinds} | {"score": round(share, 3)}
    return scores


if __name__ == "__main__":
    main()
