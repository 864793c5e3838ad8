"""The files that turn a model directory into an MLflow model (python_function and onnx).

MLflow's tools (`mlflow.pyfunc.load_model`, `mlflow models serve`, `mlflow.models.evaluate`) load a
version without Rootstock: `code.zip` holds the source of the modules that answer. Rootstock itself
never runs that copy.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import platform
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rootstock.model.bundle import CHECKSUMS, ONNX, ModelBundle, read_bundle_json
from rootstock.model.python_function import DETAILS, IMAGE_COLUMN, PythonFunction
from rootstock.system.files import sha256_file, write_json
from rootstock.tasks import answer_type, get_task

if TYPE_CHECKING:
    from mlflow.models import Model

CODE = "code.zip"
PACKAGE = "rootstock"
SOURCE = Path(__file__).parents[3]
"""The folder of the package."""
REQUIREMENTS = ("mlflow", "numpy", "onnx", "onnxruntime", "pillow")
"""The requirements of both flavors; pandas and pydantic come with MLflow."""
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of each file in `code.zip`, so that the same code gives the same archive."""


def write_model_files(bundle: ModelBundle, target: Path, *, run_id: str, folder: str) -> None:
    """Write the missing files of the model to ``target``, and checksums.json with them.

    ``folder`` is the place of the model among the artifacts of the run ``run_id``.
    Nothing is written for a task defined outside of the package, because its code is unknown here.

    Raises:
        BundleError: the model fails its golden images.
    """
    from mlflow.models import Model
    from mlflow.utils.environment import _mlflow_conda_env, _PythonEnv

    facts = bundle.facts
    kinds = (type(get_task(facts.task)).__module__, answer_type(facts.task).__module__)
    if not all(kind.startswith(f"{PACKAGE}.") for kind in kinds):
        return
    loader = PythonFunction.__module__
    package = _write_code(target / CODE, [loader, *kinds])
    requirements = [f"{name}=={_release(name)}" for name in REQUIREMENTS]
    (target / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    _mlflow_conda_env(
        path=str(target / "conda.yaml"), additional_pip_deps=requirements, install_mlflow=False
    )
    environment = _PythonEnv(platform.python_version(), dependencies=["-r requirements.txt"])
    environment.to_yaml(str(target / "python_env.yaml"))
    model = Model(artifact_path=folder, run_id=run_id, metadata={"rootstock": facts.task})
    model.add_flavor(
        "python_function",
        loader_module=loader.replace(PACKAGE, package, 1),
        code=CODE,
        python_version=platform.python_version(),
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    )
    model.add_flavor(
        "onnx",
        data=ONNX,
        onnx_version=_release("onnx"),
        providers=["CPUExecutionProvider"],
        code=None,
    )
    _describe_data(model, bundle, target)
    sums = read_bundle_json(bundle.directory / CHECKSUMS)
    model.model_size_bytes = sum(
        path.stat().st_size
        for path in [*(bundle.directory / name for name in sums), *target.iterdir()]
    )
    model.save(str(target / "MLmodel"))
    own = {path.name: sha256_file(path) for path in target.iterdir()}
    write_json(target / CHECKSUMS, dict(sorted({**sums, **own}.items())))


def _describe_data(model: Model, bundle: ModelBundle, target: Path) -> None:
    """Write an input example, the smallest golden image, and note it and the signature."""
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.models.utils import _save_example
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    content = min((bundle.golden_bytes(sample) for sample in bundle.golden), key=len)
    example = pandas.DataFrame({IMAGE_COLUMN: [content]})
    decision = PythonFunction(bundle.directory).predict(example)[0]
    kind = DataType.string if isinstance(decision, str) else DataType.double
    model.signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, IMAGE_COLUMN)]),
        outputs=Schema([ColSpec(kind, "answer", required=False)]),
        params=ParamSchema([ParamSpec(DETAILS, DataType.boolean, default=False)]),
    )
    _save_example(model, example, str(target))


def _write_code(archive: Path, modules: Sequence[str]) -> str:
    """Write the source of ``modules`` and their imports; return the name of the package.

    The name contains a part of the content's hash, so that copies of several versions can be loaded
    into one process, next to an installed Rootstock.
    """
    files = {
        path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(set(_find_sources(modules)))
    }
    digest = hashlib.sha256(repr(files).encode()).hexdigest()
    package = f"{PACKAGE}_model_{digest[:12]}"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            renamed = re.sub(rf"\b{PACKAGE}(?=\.\w)", package, text)
            entry = zipfile.ZipInfo(name.replace(PACKAGE, package, 1), ZIP_TIME)
            file.writestr(entry, renamed, zipfile.ZIP_DEFLATED)
    return package


def _find_sources(modules: Sequence[str]) -> Iterator[Path]:
    """Yield the files of modules and of everything that they import when loaded.

    Imports inside functions are ignored: training needs them, but answers do not.
    """
    waiting, done = list(modules), set()
    while waiting:
        name = waiting.pop()
        if name in done or name.partition(".")[0] != PACKAGE:
            continue
        done.add(name)
        base = SOURCE.joinpath(*name.split("."))
        path = next(
            (p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None
        )
        if path is None:  # a name in a module
            continue
        yield path
        waiting.append(name.rpartition(".")[0])
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


def _release(name: str) -> str:
    """Return the installed version in the form of a package index."""
    return importlib.metadata.version(name).partition("+")[0]
