"""`python -m rootstock`, where the package is not installed."""

from rootstock.cli.main import main

main()
