"""Entry of the studio image: `python -m services.studio`."""

import sys

from rootstock.studio.serve import main

sys.exit(main())
