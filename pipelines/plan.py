"""Stage `plan`: DatasetProfile in, TransferPlan out."""

from pipelines.entry import run
from rootstock.stages.plan import make_plan

if __name__ == "__main__":
    run(make_plan)
