"""`python -m rltoolkit` is the console script `rltoolkit`."""

import sys

from rltoolkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
