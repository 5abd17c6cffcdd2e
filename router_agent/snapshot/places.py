"""Where snapshots are kept on a router, and how many."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path("/var/lib/router-agent/snapshots")
KEEP = 20
"""One of a router with a hundred sessions has some 60 KB."""
TOLERANCES = Path("/etc/router-agent/tolerances.yaml")
"""What may differ on this router, where it is not the defaults."""
