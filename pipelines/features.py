"""Stage `features`: bottleneck features that the plan needs, into the store."""

from pipelines.entry import run
from rootstock.stages.features import cache_features

if __name__ == "__main__":
    run(cache_features)
