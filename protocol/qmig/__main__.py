"""``python -m qmig`` is the command ``qmig``."""

import sys

from qmig.cli import main

if __name__ == "__main__":
    sys.exit(main())
