"""Stage `features`: bottleneck features that the plan needs, into the store."""

from pipelines.entry import run
from rootstock.integrations.connect import connect_spreader
from rootstock.workflow.features import cache_features

if __name__ == "__main__":
    run(lambda config, paths: cache_features(config, paths, spreader=connect_spreader(config)))
