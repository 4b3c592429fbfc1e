"""`python -m segda`."""

import sys

from segda.cli.main import main

sys.exit(main())
