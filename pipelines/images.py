"""Stage `images`: detects changes of the images that a table lists."""

from pipelines.entry import run
from rootstock.workflow.listed import write_listed

if __name__ == "__main__":
    run(write_listed)
