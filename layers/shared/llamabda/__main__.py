"""`python -m llamabda` is the command `llamabda`."""

import sys

from llamabda.cli import main

sys.exit(main())
