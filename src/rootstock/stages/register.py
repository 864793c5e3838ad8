"""Stage `register`: the bundle becomes a version; champion if it wins at the gate."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rootstock.bundle import read_bundle
from rootstock.config import Config, GateConfig
from rootstock.data.files import read_json, write_json
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest
from rootstock.errors import NoModelError, RootstockError
from rootstock.evaluate.compare import Comparison, compare
from rootstock.paths import Paths
from rootstock.ports import ModelRegistry, RegistryEntry, RunLogger
from rootstock.predict import Predictor
from rootstock.stages.evaluate import predict_rows

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"


def register_model(
    config: Config, paths: Paths, *, runs: RunLogger, registry: ModelRegistry | None
) -> dict[str, Any]:
    """Register the bundle, let it meet the champion, and write artifacts/registration.json.

    Without a registry (tracking is off) nothing is registered, and the file says so.
    """
    if registry is None:
        outcome: dict[str, Any] = {
            "registered": False,
            "reason": "Not registered: tracking.enabled is false. Serve the model from its folder.",
        }
        write_json(paths.registration, outcome)
        return outcome
    training = read_json(paths.training, made_by="train")
    metrics = read_json(paths.metrics, made_by="evaluate")
    bundle = read_bundle(paths.model)
    name = config.registry.name
    with runs.run("register", run_id=training["run_id"]) as run:
        entry = registry.register(
            name,
            paths.model,
            run_id=run.id,
            tags={"strategy": bundle.strategy, "data": bundle.lineage["data_hash"]},
            description=_describe(bundle.strategy, metrics),
        )
        champion = _find_champion(registry, name)
        if champion is None:
            reason = f"Version {entry.version} is the first model and therefore champion."
            comparison = None
        else:
            root = base_folder(paths.below(config.data.root))
            comparison = _meet(config.registry.gate, paths, root, registry, champion)
            reason = f"Version {entry.version} against champion {champion.version}: " + (
                comparison.reason
            )
        promoted = comparison is None or comparison.promote
        if promoted:
            promote(registry, name, entry.version)
        else:
            registry.set_alias(name, CHALLENGER, entry.version)
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


def promote(registry: ModelRegistry, name: str, version: str) -> RegistryEntry:
    """Make a version champion; the champion until now becomes `previous_champion`.

    Raises:
        NoModelError: there is no such version.
    """
    entry = registry.find(name, version=version)
    champion = _find_champion(registry, name)
    if champion is not None and champion.version != version:
        registry.set_alias(name, PREVIOUS, champion.version)
    registry.set_alias(name, CHAMPION, version)
    if CHALLENGER in entry.aliases:
        registry.drop_alias(name, CHALLENGER)
    return registry.find(name, version=version)


def rollback(registry: ModelRegistry, name: str) -> RegistryEntry:
    """Make the previous champion champion again.

    Raises:
        NoModelError: there has been no champion before the present one.
    """
    try:
        previous = registry.find(name, alias=PREVIOUS)
    except NoModelError:
        raise NoModelError(
            f"model {name!r} has had no champion before the present one",
            hint="promote a version instead: rootstock promote VERSION",
        ) from None
    return promote(registry, name, previous.version)


def _find_champion(registry: ModelRegistry, name: str) -> RegistryEntry | None:
    try:
        return registry.find(name, alias=CHAMPION)
    except NoModelError:
        return None


def _meet(
    gate: GateConfig, paths: Paths, root: Path, registry: ModelRegistry, champion: RegistryEntry
) -> Comparison:
    """Compare the new bundle with the champion on the present test images."""
    manifest = Manifest.read(paths.manifest)
    challenger = Predictor(paths.model)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetched = registry.download(champion, Path(folder) / "champion")
            defender = Predictor(fetched)
        except NoModelError:
            raise
        except RootstockError as error:
            return Comparison.impossible(
                f"the champion cannot be loaded ({error.message}); promote by hand to replace it",
                metric=gate.metric,
            )
        if defender.classes != challenger.classes:
            return Comparison.impossible(
                "the two know different classes, so their scores cannot be compared; "
                "promote by hand with `rootstock promote` if the change of classes is meant",
                metric=gate.metric,
            )
        rows = manifest.rows("test")
        scores = [
            predict_rows(predictor, rows, root).probabilities
            for predictor in (defender, challenger)
        ]
    return compare(
        scores[0],
        scores[1],
        manifest.labels("test"),
        metric=gate.metric,
        min_gain=gate.min_gain,
    )


def _describe(strategy: str, metrics: dict[str, Any]) -> str:
    return (
        f"{strategy}; test accuracy {metrics['accuracy']:.4f} on {metrics['n_test']} images, "
        f"macro F1 {metrics['macro_f1']:.4f}, ECE {metrics['ece']:.4f}"
    )
