"""Stage `index`: images in, Manifest out."""

from pipelines.entry import run
from rootstock.workflow.index import index_and_warn

if __name__ == "__main__":
    run(index_and_warn)
