"""`python -m rootstock.service`."""

from rootstock.service.serve import main

main()
