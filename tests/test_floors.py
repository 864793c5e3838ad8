"""A module imports only from lower floors, or from its folder."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.code import list_code

SRC = Path(__file__).parents[1] / "src"
FLOORS = {
    "errors": 0,
    "system": 1,
    "metrics": 1,
    "config": 2,
    "data": 2,
    "runtimes": 2,
    "ports": 2,
    "plots": 3,
    "backbones": 3,
    "heads": 3,
    "tasks": 4,
    "features": 4,
    "assess": 5,
    "plan": 6,
    "review": 7,
    "training": 7,
    "evaluate": 7,
    "model": 8,
    "registry": 9,
    "explain": 9,
    "export": 9,
    "workflow": 10,
    "client": 5,
    "integrations": 11,
    "service": 12,
    "studio": 13,
    "cli": 14,
    "api": 15,
    "__main__": 15,
}
MODULES = sorted((SRC / "rootstock").rglob("*.py"))
INTEGRATIONS_ONLY = {"mlflow", "ray", "dvc", "fastapi", "optuna"}
DECIDES_WITHOUT_TORCH = [
    "errors",
    "config",
    "data",
    "metrics",
    "ports",
    "registry.history",
    "system",
    "plan.rules",
    "plan.evidence",
    "plan.race_rules",
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts)


def part_of(module: str) -> str:
    """Return the second word of a dotted name: rootstock.data.decode -> data."""
    return (module.split(".") + [""])[1]


def imports_of(path: Path, *, top_level_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            # `from rootstock import stages` names a module
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down_only(path):
    here = part_of(module_name(path))
    for target in imports_of(path):
        there = part_of(target) if target.startswith("rootstock.") else ""
        if there in FLOORS and there != here and here in FLOORS:
            assert FLOORS[there] < FLOORS[here], (
                f"{module_name(path)} (floor {FLOORS[here]}) imports {target} "
                f"(floor {FLOORS[there]}): imports go down only"
            )


BELOW_INTEGRATIONS = [
    path for path in MODULES if FLOORS.get(part_of(module_name(path)), 0) < FLOORS["integrations"]
]
SERVED_MODELS = sorted((SRC / "rootstock/service/models").glob("*.py"))
DECIDING = [
    path
    for path in MODULES
    if any(
        f"{module_name(path)}.".startswith(f"rootstock.{part}.") for part in DECIDES_WITHOUT_TORCH
    )
]


@pytest.mark.parametrize("path", BELOW_INTEGRATIONS, ids=module_name)
def test_only_integrations_know_ray_mlflow_dvc_and_fastapi(path):
    roots = {target.split(".")[0] for target in imports_of(path)}
    assert not roots & INTEGRATIONS_ONLY


@pytest.mark.parametrize("path", SERVED_MODELS, ids=module_name)
def test_service_models_import_no_http_or_integration(path):
    banned = ("rootstock.service.http", "rootstock.integrations", "fastapi", "starlette")
    assert not [target for target in imports_of(path) if target.startswith(banned)]


@pytest.mark.parametrize("path", DECIDING, ids=module_name)
def test_deciding_modules_do_not_import_torch(path):
    roots = {target.split(".")[0] for target in imports_of(path)}
    assert not roots & {"torch", "torchvision", "timm"}


@pytest.mark.parametrize("stage", ["index", "register"])
def test_stages_without_network_do_not_load_torch(stage):
    code = f"import sys, pipelines.{stage}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SRC.parent)


def test_every_module_has_a_floor():
    parts = {part_of(module_name(path)) for path in MODULES} - {"", "__init__"}
    assert parts <= set(FLOORS), f"give a floor to {parts - set(FLOORS)}"


def picture(heading: str) -> list[str]:
    """Return the first code block below a heading of docs/explanation/architecture.md."""
    page = (SRC.parent / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    return page.split(f"\n## {heading}\n", 1)[1].split("```", 2)[1].splitlines()


def test_the_architecture_page_shows_these_floors():
    lines = [line.split(maxsplit=1) for line in picture("Floors") if line]
    assert {part: int(floor) for floor, parts in lines for part in parts.split(" | ")} == FLOORS


def test_the_architecture_page_shows_the_tree():
    shown: set[str] = set()
    folder = ""
    lines = picture("The tree")
    for line in lines[lines.index(next(one for one in lines if "src/rootstock/" in one)) + 1 :]:
        first, *others = line.split()
        if line.startswith(f"  {first}") and first.endswith("/"):
            folder, names = first, others
        else:
            names = [first, *others]
        shown |= {folder, *(f"{folder}{name}" for name in names)}
    package = SRC / "rootstock"
    missing = [n for n in shown if not (package / (n if n.endswith("/") else f"{n}.py")).exists()]
    assert not [name for name in missing if name]
    rooms = {f"{path.relative_to(package).parent.as_posix()}/" for path in MODULES} - {"./"}
    assert rooms <= shown


def test_modules_form_no_circles():
    names = {module_name(path): path for path in MODULES}
    graph = {
        name: {target for target in imports_of(path, top_level_only=True) if target in names}
        for name, path in names.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, f"circle: {' -> '.join([*trail, name])}"
        if name not in done:
            for target in graph[name]:
                visit(target, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_nothing_unpickles():
    banned = re.compile(
        r"\b(import pickle|pickle\.load|torch\.load|torch\.save|joblib\.|allow_pickle=True)"
    )
    # torchvision and packages publish weights only in this form. They are read only with a known
    # hash, and weights_only reads tensors and no code.
    published = [SRC / f"rootstock/backbones/{name}.py" for name in ("published", "packaged")]
    allowed = 'torch.load(path, map_location="cpu", weights_only=True)'
    for path in MODULES + sorted((SRC.parent / "services").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path in published:
            text = text.replace(allowed, "")
        assert not banned.search(text), f"{path} uses pickle"


def test_dvc_yaml_lists_code_that_each_stage_imports():
    text = (SRC.parent / "dvc.yaml").read_text(encoding="utf-8")
    assert text == list_code(text, SRC.parent), "run `python -m pipelines.code` and commit dvc.yaml"
