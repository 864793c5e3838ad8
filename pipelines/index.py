"""Stage `index`: images in, Manifest out."""

from pipelines.entry import run
from rootstock.workflow.index import index_images

if __name__ == "__main__":
    run(index_images)
