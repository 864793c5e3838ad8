"""Stage `images`: notices that an image which a table lists has changed."""

from pipelines.entry import run
from rootstock.workflow.listed import write_listed

if __name__ == "__main__":
    run(write_listed)
