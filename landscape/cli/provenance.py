"""Who made a result: the command, this version, and when."""

from __future__ import annotations

import argparse
import datetime

from landscape import __version__


def provenance(arguments: argparse.Namespace) -> dict[str, str]:
    """Plain texts: command (as it would be typed in a shell), version and date (UTC, to the second)."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return {
        "command": str(arguments.command_line),
        "version": f"learned-landscape {__version__}",
        "date": now.isoformat().replace("+00:00", "Z"),
    }
