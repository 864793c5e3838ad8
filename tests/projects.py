"""A copy of the project with a small data set, and DVC in it."""

import copy
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.bundles import tiny_backbone
from tests.data.folders import write_classes

ROOT = Path(__file__).parents[1]
STAGES = ["index", "assess", "plan", "features", "train", "evaluate", "register"]
KNOWN = ("NAME", "EMAIL")
RESULTS = ["manifest.parquet", "profile.json", "plan.json", "features.json"]

PARAMS = """
seed: 0
quality: balanced
task: {{name: single_label, threshold: f1}}
data: {{geometry: auto, root: data/raw, licence: not stated, source: not stated}}
backbone: {{weights: {weights}}}
assess: {{probe_folds: 2}}
plan: {{strategy: {strategy}, input_size: auto}}
features: {{store: .rootstock/features, batch_size: 16, pooling: avg, precision: float32}}
train: {{epochs: 1, learning_rates: [0.001], l2_grid: [0.1], class_weight: {weight}}}
export: {{int8: auto, max_loss: 0.003}}
search: {{engine: {engine}}}
registry: {{reference: names, name: {name}}}
"""


def environment(root: Path) -> dict[str, str]:
    """Return the variables of a shell in the project with its environment active."""
    people = {f"GIT_{who}_{what}": "team@x" for who in ("AUTHOR", "COMMITTER") for what in KNOWN}
    return (
        os.environ
        | people
        | {
            "PYTHONPATH": str(root / "src"),
            "DVC_SITE_CACHE_DIR": str(root / ".rootstock/dvc"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
    )


class Project:
    """A copy of the project with separate data; `repro` runs DVC in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("pipelines", "src", ".dvc"):
            ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.egg-info")
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(ROOT / name, root / name)
        self.set(weights=tiny_backbone().card.weights)
        self.environment = environment(root)
        write_classes(root / "data/raw", {"ants": 16, "bees": 16})
        self.run("git", "init", "--quiet")
        self.run("dvc", "add", "--quiet", "data/raw")
        self.commit()

    def set(
        self,
        *,
        weights: str,
        strategy: str = "linear_probe",
        weight: str = "none",
        engine: str = "sequential",
        name: str = "rootstock",
    ) -> None:
        text = PARAMS.format(
            weights=weights, strategy=strategy, weight=weight, engine=engine, name=name
        )
        (self.root / "params.yaml").write_text(text)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", "as it is now")

    def share(self, folder: Path, remote: str, endpoint: str = "") -> "Project":
        """A colleague's project: git's clone, and the content of DVC's remote."""
        self.run("dvc", "remote", "add", "--force", "--default", "team", remote)
        if endpoint:
            self.run("dvc", "remote", "modify", "team", "endpointurl", endpoint)
        self.environment = environment(self.root)  # with the keys of this test's remote
        self.run("dvc", "push", "--quiet")
        self.commit()
        other = copy.copy(self)
        other.root = folder / "clone"
        other.environment = environment(other.root)
        self.run("git", "clone", "--quiet", ".", str(other.root))
        other.run("dvc", "pull", "--quiet")
        return other

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def repro(self) -> list[str]:
        """Run `dvc repro`; return the stages that ran."""
        output, _ = (process := self.start()).communicate(timeout=240)
        assert process.returncode == 0, output
        return [name for name in STAGES if f"Running stage '{name}'" in output]

    def kill_in(self, stage: str) -> None:
        """Start `dvc repro` and kill it with all its children as soon as ``stage`` runs."""
        process = self.start()
        assert process.stdout is not None
        for line in process.stdout:
            if f"Running stage '{stage}'" in line:
                time.sleep(1.5)
                break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def results(self) -> dict[str, bytes]:
        return {name: (self.root / "artifacts" / name).read_bytes() for name in RESULTS}

    def segments(self) -> dict[str, float]:
        store = self.root / ".rootstock/features"
        return {path.name: path.stat().st_mtime for path in store.rglob("*.safetensors")}
