"""`python -m landscape.cli`."""

import sys

from landscape.cli import main

if __name__ == "__main__":
    sys.exit(main())
