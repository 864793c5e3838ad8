"""The dependencies of a stage: the code that it imports, and the params.yaml keys it reads."""

import sys
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from rootstock.config.paths import Paths
from rootstock.workflow.code_dependencies import digest_code, find_code
from rootstock.workflow.prepare import PARAMS
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes
from tests.projects import ROOT, STAGES

UNDECLARED = {
    "data.root": "the manifest holds the hashes of the images",
    "features.store": "a cache: what is in it does not depend on where it is",
    "features.batch_size": "another size, the same features",
    "features.device": "another device, the same features up to rounding",
    "search.workers_per_trial": "how work is spread: more workers must not train again",
    "registry.gate.metric": "the index refuses what the task does not have, before the work",
    "train.class_weight": "likewise",
    "train.ensemble": "likewise",
    "plan.strategy": "the index refuses an ensemble of heads; what is trained is in the plan",
    "plan.ledger": "the file that gets a line about what the stage has found",
    "*": "the lineage of a model records the whole configuration",
}
"""Keys that stages read and yet do not depend on, and why."""


@pytest.fixture
def package(tmp_path):
    """Write files of a package `app`; return the dependencies of `app.start`, except itself."""

    def write(files):
        for name, text in {"__init__.py": "", **files}.items():
            path = tmp_path / "app" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        code = {path.relative_to(tmp_path / "app") for path in find_code("app.start", [tmp_path])}
        return {path.as_posix() for path in code} - {"__init__.py", "start.py"}

    return write


@pytest.mark.parametrize(
    "source",
    [
        "import app.part",
        "import app.part as other",
        "from app import part",
        "from app.part import something",
        "from . import part",
        "from .part import something",
        "def later():\n    from app.part import something",
        "from importlib import import_module\nimport_module('app.part')",
        "import importlib\nHOMES = {'part': 'app.part'}\nimportlib.import_module(HOMES['part'])",
        "if TYPE_CHECKING:\n    import typing\nelse:\n    import app.part",
    ],
)
def test_every_kind_of_import_counts(package, source):
    assert package({"start.py": source, "part.py": ""}) == {"part.py"}


@pytest.mark.parametrize(
    "source",
    [
        "NAME = 'app.part'",
        "import part",
        "import numpy.linalg",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import app.part",
        "import typing\nif typing.TYPE_CHECKING:\n    def f():\n        import app.part",
    ],
)
def test_what_is_not_imported_does_not_count(package, source):
    assert package({"start.py": source, "part.py": ""}) == set()


def test_imports_of_imports_count_and_their_packages(package):
    files = {
        "start.py": "import app.one.two",
        "one/__init__.py": "import app.three",
        "one/two.py": "import app.start",
        "three.py": "",
        "four.py": "",
    }
    assert package(files) == {"one/__init__.py", "one/two.py", "three.py"}


def test_files_that_a_module_names_count(package):
    start = "from pathlib import Path\nCARDS = Path(__file__).parent / 'cards'\nPAGE = 'page.html'"
    files = {"start.py": start, "cards/tiny.json": "{}", "page.html": "", "other.html": ""}
    assert package(files) == {"cards/tiny.json", "page.html"}


def test_service_commands_and_adapters_do_not_count(tmp_path):
    for name in ("stage", "part", "service/app", "cli/main", "integrations/connect", "behind"):
        path = tmp_path / f"rootstock/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import rootstock.behind")
    (tmp_path / "rootstock/stage.py").write_text(
        "import rootstock.part_of, rootstock.service.app, rootstock.cli.main\n"
        "from rootstock import integrations\nfrom rootstock.integrations.connect import connect\n"
    )
    assert find_code("rootstock.stage", [tmp_path]) == [tmp_path / "rootstock/stage.py"]


def test_libraries_installed_next_to_package_do_not_count(tmp_path):
    for name, text in {"rootstock/stage": "import library", "library": "A = 1"}.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert find_code("rootstock.stage", [tmp_path]) == [tmp_path / "rootstock/stage.py"]


def test_digest_changes_only_with_its_code(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    for name, source in {"start": "import app.part", "part": "", "other": ""}.items():
        (folder / f"{name}.py").write_text(source)
    before = digest_code("app.start", tmp_path)
    (folder / "other.py").write_text("A = 1")
    assert digest_code("app.start", tmp_path) == before
    (folder / "part.py").write_text("A = 1")
    assert digest_code("app.start", tmp_path) != before


@pytest.mark.parametrize("stage", STAGES)
def test_measures_count_for_all_stages_that_know_task(stage):
    files = find_code(f"rootstock.workflow.{stage}")
    for measures in ("metrics.py", "tasks/single_label/measures.py"):
        assert ROOT / "src/rootstock" / measures in files


@contextmanager
def fresh_modules():
    """Import Rootstock again in this context, so that `sys.modules` holds a stage's imports."""

    def take():
        names = [name for name in sys.modules if name.split(".")[0] in ("rootstock", "tests")]
        return {name: sys.modules.pop(name) for name in names}

    modules = take()
    try:
        yield
    finally:
        take()
        sys.modules.update(modules)


def record_reads(schema, keys):
    """Make every section of the configuration add the keys that are read to ``keys``."""

    def prefixes(section, prefix=""):
        yield section, prefix
        for name, field in section.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, schema.Section):
                yield from prefixes(field.annotation, f"{prefix}{name}.")

    sections = dict(prefixes(schema.Config))
    read = schema.Section.__getattribute__

    def read_and_record(self, name):
        kind = type(self)
        if name == "model_dump":
            keys.add(f"{sections[kind]}*")
        elif name in kind.model_fields and kind.model_fields[name].annotation not in sections:
            keys.add(f"{sections[kind]}{name}")
        return read(self, name)

    schema.Section.__getattribute__ = read_and_record


def run_stage(stage, config, paths):
    module = import_module(f"rootstock.workflow.{stage}")
    if stage == "index":
        module.index_images(config, paths)
    elif stage == "assess":
        module.assess_data(config, paths)
    elif stage == "features":
        module.cache_features(config, paths)
    elif stage == "plan":
        searcher = import_module("rootstock.ports.search").SequentialSearcher()
        module.make_plan(config, paths, searcher=searcher)
    else:
        runs = import_module("rootstock.ports.runs").NullRunLogger()
        if stage == "train":
            searcher = import_module("rootstock.ports.search").SequentialSearcher()
            module.train_model(config, paths, runs=runs, searcher=searcher)
        elif stage == "evaluate":
            module.evaluate_model(config, paths, runs=runs)
        elif stage == "register":
            registries = import_module("tests.folder_registry")
            folder = registries.FolderRegistry(paths.root / "registry")
            for _ in range(2):  # the second time there is a champion to compare with
                module.register_model(config, paths, runs=runs, registry=folder)
                registries.alter_bundle(paths.model)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The keys that each stage read, and the files that it imported, in one complete run."""
    root = tmp_path_factory.mktemp("recorded")
    tiny = Path(tiny_backbone().card.weights)
    other = root / "other.safetensors"
    other.write_bytes(tiny.read_bytes())
    other.with_suffix(".json").write_bytes(tiny.with_suffix(".json").read_bytes())
    settings = [
        f"data.root={write_classes(root / 'data', {'ants': 40, 'bees': 40})}",
        f"backbone.weights={tiny}",
        f"backbone.candidates=[{other}]",
        "data.workers=1",
        "assess.probe_folds=2",
        # An expectation this wide is uncertain, so a race has to decide.
        "plan.shares={small: [-1, 0.95], medium: [-1, 0.95], large: [-1, 0.95]}",
        "train.epochs=1",
        "train.learning_rates=[0.001]",
        "train.l2_grid=[0.1]",
    ]
    reads, imports = {}, {}
    for stage in STAGES:
        reads[stage] = set()
        with fresh_modules():
            config = import_module("rootstock.config.load").load_config(None, overrides=settings)
            paths = import_module("rootstock.config.paths").Paths(root / "out")
            type(paths).paces = Paths.paces  # measured once for all tests
            record_reads(import_module("rootstock.config.schema"), reads[stage])
            run_stage(stage, config, paths)
            imports[stage] = {
                Path(module.__file__)
                for name, module in sys.modules.items()
                if name.split(".")[0] == "rootstock"
            }
    return root / "out", reads, imports


@cache
def declared(stage):
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage].get("params", [])


def is_covered(key, params):
    return any(f"{key}.".startswith(f"{param}.") for param in params)


def test_the_recorded_run_held_a_race_between_candidates(recorded):
    out, _, _ = recorded
    plan = import_module("rootstock.plan.transfer_plan").TransferPlan.read(
        out / "artifacts/plan.json"
    )
    assert plan.race is not None
    assert plan.backbones


@pytest.mark.parametrize("stage", STAGES)
def test_stage_imports_no_module_that_its_code_lacks(recorded, stage):
    _, _, imports = recorded
    code = find_code(f"pipelines.{stage}", (ROOT, ROOT / "src"))
    assert imports[stage] <= set(code)
    assert len(imports[stage]) > 15


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_keys_that_it_reads(recorded, stage):
    _, reads, _ = recorded
    params = declared(stage)
    assert {key for key in reads[stage] if not is_covered(key, params)} <= UNDECLARED.keys()
    assert [
        key for key in params if not any(is_covered(read, [key]) for read in reads[stage])
    ] == []


def test_keys_without_need_have_no_reason(recorded):
    _, reads, _ = recorded
    needed = {
        key for stage in STAGES for key in reads[stage] if not is_covered(key, declared(stage))
    }
    assert needed == UNDECLARED.keys()


@pytest.mark.parametrize("stage", PARAMS)
def test_training_without_dvc_depends_on_the_same_keys(stage):
    assert sorted(PARAMS[stage]) == sorted(declared(stage))


def test_each_declared_key_is_in_params_yaml():
    """DVC rejects a stage whose key is missing there."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for stage in STAGES:
        for key in declared(stage):
            value = params
            for part in key.split("."):
                value = value[part]
