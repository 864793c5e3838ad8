"""Stage `assess`: Manifest in, DatasetProfile out."""

from pipelines.entry import run
from rootstock.workflow.assess import assess_data

if __name__ == "__main__":
    run(assess_data)
