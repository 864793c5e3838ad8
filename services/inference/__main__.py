"""Entry of the inference image: `python -m services.inference`."""

from rootstock.service.serve import main

main()
