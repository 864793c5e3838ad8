"""Entry point of `python -m rootstock`, for a source tree that is not installed."""

from rootstock.cli.main import main

main()
