"""`python -m exo` is `exo`."""

import sys

from exo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
