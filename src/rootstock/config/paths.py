"""Where the stages read and write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Where the stages read and write, all below one root."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "artifacts/manifest.parquet"

    @property
    def profile(self) -> Path:
        return self.root / "artifacts/profile.json"

    @property
    def review(self) -> Path:
        return self.root / "artifacts/review.json"

    @property
    def plan(self) -> Path:
        return self.root / "artifacts/plan.json"

    @property
    def features(self) -> Path:
        return self.root / "artifacts/features.json"

    @property
    def model(self) -> Path:
        return self.root / "artifacts/model"

    @property
    def decisions(self) -> Path:
        return self.root / "artifacts/decisions.parquet"

    @property
    def training(self) -> Path:
        return self.root / "artifacts/training.json"

    @property
    def registration(self) -> Path:
        return self.root / "artifacts/registration.json"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def model_card(self) -> Path:
        return self.reports / "model_card.md"

    @property
    def per_class(self) -> Path:
        return self.reports / "per_class.csv"

    @property
    def metrics(self) -> Path:
        return self.reports / "metrics.json"

    @property
    def seen(self) -> Path:
        return self.root / ".rootstock/seen.parquet"

    @property
    def kept(self) -> Path:
        return self.root / ".rootstock/stages"

    @property
    def races(self) -> Path:
        return self.root / ".rootstock/races"

    @property
    def paces(self) -> Path:
        return self.root / ".rootstock/paces"

    @property
    def estimates(self) -> Path:
        return self.root / ".rootstock/estimates"

    @property
    def forecast(self) -> Path:
        return self.reports / "forecast.json"

    @property
    def trials(self) -> Path:
        return self.root / ".rootstock/trials"

    def below(self, path: Path) -> Path:
        """``path`` itself if absolute, else below the root."""
        return path if path.is_absolute() else self.root / path
