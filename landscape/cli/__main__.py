"""`python -m landscape.cli`."""

import sys

from landscape.cli import command

if __name__ == "__main__":
    sys.exit(command())
