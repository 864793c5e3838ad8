"""Stage `register`: the bundle becomes a version; champion if it wins at the gate."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.manifest import Manifest
from rootstock.errors import ArtifactError, ConflictError, NoModelError, RootstockError
from rootstock.evaluate.decisions import read_decisions
from rootstock.model.batch_predict import predict_rows
from rootstock.model.bundle import ModelBundle, read_bundle
from rootstock.model.bundle_writer import copy_with_card
from rootstock.model.card import render_card
from rootstock.model.predictor import Predictor
from rootstock.ports.registry import ModelRegistry, RegistryEntry
from rootstock.ports.runs import RunLogger
from rootstock.registry.champion import CHALLENGER, CHAMPION, find_alias, promote, settle_and_adopt
from rootstock.system.files import read_json, write_atomic, write_json
from rootstock.tasks import get_task
from rootstock.tasks.comparison import Comparison
from rootstock.tasks.dataset import read_targets
from rootstock.workflow.project import Project
from rootstock.workflow.task_settings import gate_metric

MEETINGS = 3
"""How often a challenger meets a champion that changes meanwhile, before that is left to people."""


def register_model(
    config: Config, paths: Paths, *, runs: RunLogger, registry: ModelRegistry | None
) -> dict[str, Any]:
    """Register the bundle, let it meet the champion, and write artifacts/registration.json.

    Without a registry (tracking is off) nothing is registered, and the file says so.
    Raises:
        ConfigError: the task does not have the gate's metric.
    """
    project = Project(config, paths)
    bundle = read_bundle(paths.model)
    metric = gate_metric(config, get_task(bundle.facts.task))
    card = write_card(project, bundle)
    if registry is None:
        outcome: dict[str, Any] = {
            "registered": False,
            "reason": "Not registered: tracking.enabled is false. Serve the model from its folder.",
        }
        write_json(paths.registration, outcome)
        return outcome
    training = read_json(paths.training, made_by="train")
    name = config.registry.name
    with runs.run("register", run_id=training["run_id"]) as run:
        with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
            entry = registry.register(
                name,
                copy_with_card(bundle, Path(folder) / "model", card),
                run_id=run.id,
                tags={"strategy": bundle.strategy, "data": bundle.lineage["data_hash"]},
                description=card,
            )
        comparison, promoted, reason = _pass_gate(
            registry,
            name,
            entry,
            partial(
                _meet,
                bundle,
                registry=registry,
                manifest=project.manifest,
                root=project.root,
                decisions=paths.decisions,
                metric=metric,
                min_gain=config.registry.gate.min_gain,
            ),
        )
        registry.set_tags(name, entry.version, {"gate": reason})
    outcome = {
        "registered": True,
        "name": name,
        "version": entry.version,
        "alias": CHAMPION if promoted else CHALLENGER,
        "reason": reason,
        "comparison": None if comparison is None else comparison.to_dict(),
    }
    write_json(paths.registration, outcome)
    return outcome


def _pass_gate(
    registry: ModelRegistry,
    name: str,
    entry: RegistryEntry,
    meet: Callable[[RegistryEntry], Comparison],
) -> tuple[Comparison | None, bool, str]:
    """Let a new version meet the champion; return the comparison, if it took over, and why.

    ``meet`` compares it with a champion on the test images.
    """
    comparison = None
    for _ in range(MEETINGS):
        changes = settle_and_adopt(registry, name)
        champion = find_alias(registry, name, CHAMPION)
        if champion is None:
            comparison = None
            reason = f"Version {entry.version} is the first model and therefore champion."
        else:
            comparison = meet(champion)
            reason = f"Version {entry.version} against champion {champion.version}: " + (
                comparison.reason
            )
            if not comparison.promote:
                break
        after = changes[-1].number if changes else 0
        try:
            promote(registry, name, entry.version, after=after, kind="gate", why=reason)
        except ConflictError:
            continue
        return comparison, True, reason
    else:
        reason = (
            f"Version {entry.version}: not promoted: the champion changed while it was compared, "
            f"{MEETINGS} times; `rootstock compare`, then promote by hand."
        )
    registry.set_alias(name, CHALLENGER, entry.version)
    return comparison, False, reason


def _meet(
    challenger: ModelBundle,
    champion: RegistryEntry,
    *,
    registry: ModelRegistry,
    manifest: Manifest,
    root: Path,
    decisions: Path,
    metric: str,
    min_gain: float,
) -> Comparison:
    """Compare the new bundle with the champion on the present test images.

    ``decisions`` is the file of those that `evaluate` took with the new bundle.
    """
    task = get_task(challenger.facts.task)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetched = registry.download(champion, Path(folder) / "champion")
            defender = Predictor(fetched)
        except NoModelError:
            raise
        except RootstockError as error:
            return Comparison.impossible(
                f"the champion cannot be loaded ({error.message}); promote by hand to replace it",
                metric=metric,
            )
        if (defender.task.name, defender.names) != (task.name, challenger.names):
            return Comparison.impossible(
                "the two know different classes, so their scores cannot be compared; "
                "promote by hand with `rootstock promote` if the change of classes is meant",
                metric=metric,
            )
        rows = manifest.rows("test")
        champion_decisions = predict_rows(defender, rows, root).decisions
    return task.compare(
        champion_decisions,
        read_decisions(decisions, rows),
        read_targets(task, rows, challenger.names),
        metric=metric,
        min_gain=min_gain,
    )


def write_card(project: Project, bundle: ModelBundle) -> str:
    """Write reports/model_card.md; return its text."""
    config, paths = project.config, project.paths
    text = render_card(
        name=config.registry.name,
        manifest=project.manifest,
        facts=bundle.facts.model_dump(mode="json"),
        plan=read_json(paths.plan, made_by="plan"),
        metrics=read_json(paths.metrics, made_by="evaluate"),
        rows=_read_rows(paths.per_class),
        licence=config.data.licence,
        source=config.data.source,
    )
    with write_atomic(paths.model_card) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", hint="run the stage `evaluate` again"
        ) from None
