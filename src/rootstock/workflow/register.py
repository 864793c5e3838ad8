"""Stage `register`: the bundle becomes a version, and champion if it passes the gate."""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rootstock.config.paths import Paths
from rootstock.config.schema import Config, GateConfig
from rootstock.errors import ArtifactError, ConflictError, RootstockError
from rootstock.evaluate.decisions import read_decisions
from rootstock.model.batch_predict import predict_rows
from rootstock.model.bundle import ModelBundle, read_bundle
from rootstock.model.card import render_card
from rootstock.model.predictor import Predictor
from rootstock.ports.registry import ModelRegistry, RegistryEntry
from rootstock.ports.runs import RunLogger
from rootstock.registry.champion import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    find_alias,
    promote,
    settle_and_adopt,
)
from rootstock.registry.tags import BUNDLE_TAG, CARD_TAG, GATE_TAG, REASON_TAG
from rootstock.system.digest import digest_json
from rootstock.system.files import read_json, write_atomic, write_json
from rootstock.tasks import get_task
from rootstock.tasks.comparison import Comparison
from rootstock.tasks.dataset import read_targets
from rootstock.training.resume import training_run
from rootstock.workflow.fragility import refuse_fragile
from rootstock.workflow.project import Project
from rootstock.workflow.task_settings import gate_metric

ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
MEETINGS = 3
"""How often a challenger is compared with a champion that keeps changing, before giving up."""


@dataclass(frozen=True)
class Gate:
    """The metric by which models are compared, and the settings that decide."""

    metric: str
    config: GateConfig

    @property
    def text(self) -> str:
        """A text that is equal for gates that decide the same."""
        text = f"{self.config.rule} {self.metric} {self.config.min_gain:g}"
        loss = self.config.max_robustness_loss
        return text if loss is None else f"{text} robust {loss:g}"


def register_model(
    config: Config, paths: Paths, *, runs: RunLogger, registry: ModelRegistry | None
) -> dict[str, Any]:
    """Register the bundle, compare it with the champion, and write artifacts/registration.json.

    A registered model is not registered again. It is compared with the champion again only if
    `registry.gate` has changed and it was never champion. Without a registry (tracking is off)
    nothing is registered, and the file says so.
    Raises:
        ConfigError: the task does not have the gate's metric.
    """
    project = Project(config, paths)
    bundle = read_bundle(paths.model)
    gate = Gate(gate_metric(config, get_task(bundle.facts.task)), config.registry.gate)
    card = write_card(project, bundle)
    if registry is None:
        outcome: dict[str, Any] = {
            "registered": False,
            "model": bundle.digest,
            "reason": "Not registered, because tracking.enabled is false. Serve the model from "
            "its folder.",
        }
        write_json(paths.registration, outcome)
        return outcome
    name = config.registry.name
    entry = _find_registered(registry, name, bundle)
    known = entry is not None
    if entry is None:
        entry = _register(project, bundle, card, runs=runs, registry=registry)
    elif entry.tags.get(CARD_TAG) != _digest_card(card):
        registry.describe(name, entry.version, card)
        registry.set_tags(name, entry.version, {CARD_TAG: _digest_card(card)})
    comparison = None
    if known and not _may_meet(registry, entry, gate):
        alias = next((one for one in ALIASES if one in entry.aliases), "")
        reason = f"Already registered as version {entry.version}{alias and f' ({alias})'}"
        reason += f". Gate: {entry.tags[REASON_TAG]}" if REASON_TAG in entry.tags else "."
    else:
        meet = partial(_meet, bundle, registry=registry, project=project, gate=gate)
        comparison, promoted, reason = _pass_gate(registry, name, entry, meet)
        alias = CHAMPION if promoted else CHALLENGER
        registry.set_tags(name, entry.version, {REASON_TAG: reason, GATE_TAG: gate.text})
    outcome = {
        "registered": True,
        "name": name,
        "version": entry.version,
        "alias": alias,
        "model": bundle.digest,
        "reason": reason,
        "comparison": None if comparison is None else comparison.to_dict(),
    }
    write_json(paths.registration, outcome)
    return outcome


def _find_registered(
    registry: ModelRegistry, name: str, bundle: ModelBundle
) -> RegistryEntry | None:
    """Return the newest version that is this bundle and still has its files."""
    same = (one for one in registry.versions(name) if one.tags.get(BUNDLE_TAG) == bundle.digest)
    return next((one for one in reversed(list(same)) if registry.holds_files(one)), None)


def _register(
    project: Project, bundle: ModelBundle, card: str, *, runs: RunLogger, registry: ModelRegistry
) -> RegistryEntry:
    from rootstock.model.bundle_writer import copy_with_card  # loads torch

    training = read_json(project.paths.training, made_by="train")
    metrics = read_json(project.paths.metrics, made_by="evaluate")
    with (
        training_run(runs, training, project.paths.runs) as run,
        tempfile.TemporaryDirectory(prefix="rootstock-") as folder,
    ):
        return registry.register(
            project.config.registry.name,
            copy_with_card(bundle, Path(folder) / "model", card, metrics),
            run_id=run.id,
            tags={
                "strategy": bundle.strategy,
                "data": bundle.lineage["data_hash"],
                BUNDLE_TAG: bundle.digest,
                CARD_TAG: _digest_card(card),
            },
            description=card,
        )


def _may_meet(registry: ModelRegistry, entry: RegistryEntry, gate: Gate) -> bool:
    """Return whether a registered version must still pass the gate, or a changed gate.

    An interrupted registration has not passed any gate.
    """
    if entry.tags.get(GATE_TAG) == gate.text:
        return False
    # People may have replaced a former champion, so the gate does not restore it.
    changes = settle_and_adopt(registry, entry.name)
    return entry.version not in {change.version for change in changes}


def _digest_card(card: str) -> str:
    return digest_json(card, digits=16)


def _pass_gate(
    registry: ModelRegistry,
    name: str,
    entry: RegistryEntry,
    meet: Callable[[RegistryEntry], Comparison],
) -> tuple[Comparison | None, bool, str]:
    """Compare a new version with the champion; return comparison, whether it won, and the reason.

    ``meet`` compares it with a champion on the test images.
    """
    comparison = None
    for _ in range(MEETINGS):
        changes = settle_and_adopt(registry, name)
        champion = find_alias(registry, name, CHAMPION)
        if champion is None:
            comparison = None
            reason = f"Version {entry.version} is the first model, so it is the champion."
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
            f"Version {entry.version} was not promoted, because the champion changed {MEETINGS} "
            "times during the comparison. Run `rootstock compare`, then promote by hand."
        )
    registry.set_alias(name, CHALLENGER, entry.version)
    return comparison, False, reason


def _meet(
    challenger: ModelBundle,
    champion: RegistryEntry,
    *,
    registry: ModelRegistry,
    project: Project,
    gate: Gate,
) -> Comparison:
    """Compare the new bundle with the champion on the current test images.

    The decisions of the new bundle are those of the stage `evaluate`.
    """
    task = get_task(challenger.facts.task)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetched = registry.download(champion, Path(folder) / "champion")
            defender = Predictor(fetched)
        except RootstockError as error:
            return Comparison.impossible(
                f"the champion cannot be loaded ({error.message}); promote by hand to replace it",
                metric=gate.metric,
            )
        if (defender.task.name, defender.names) != (task.name, challenger.names):
            return Comparison.impossible(
                "the two models have different classes, so their scores cannot be compared; "
                "promote with `rootstock promote` if the change of classes is intended",
                metric=gate.metric,
            )
        rows = project.manifest.rows("test")
        champion_decisions = predict_rows(defender, rows, project.root).decisions
        comparison = task.compare(
            champion_decisions,
            read_decisions(project.paths.decisions, rows),
            read_targets(task, rows, challenger.names),
            metric=gate.metric,
            rule=gate.config.rule,
            min_gain=gate.config.min_gain,
        )
        if comparison.promote and gate.config.max_robustness_loss is not None:
            allowed = gate.config.max_robustness_loss
            refusal = refuse_fragile(Predictor(challenger), defender, rows, project.root, allowed)
            if refusal:
                return dataclasses.replace(comparison, promote=False, reason=refusal)
    return comparison


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
            rows = list(csv.DictReader(file, strict=True))
        if any(None in row.values() for row in rows):
            raise ValueError("a row has too few cells")
        return rows
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", hint="run the stage `evaluate` again"
        ) from None
