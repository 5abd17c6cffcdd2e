"""Make one file of this program, for hosts.

    python -m router_agent.lastgood.pack FILE

The same modules give the same bytes. It is a zip archive that Python runs (PEP 441), put into place by one
rename: a host has the old program or the new one, whenever its power is cut.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import router_agent

_FIRST = b"#!/usr/bin/python3 -I\n"
_MAIN = "import sys\n\nfrom router_agent.lastgood.program import main\n\nsys.exit(main())\n"
_LEFT_OUT = ("pack.py", "cli.py")
"""What hosts have no use for, and what belongs to the agent."""
_TIME = (1980, 1, 1, 0, 0, 0)
"""The first that zip knows."""


def packed() -> bytes:
    """Return the program."""
    package = Path(router_agent.__file__).parent
    modules = sorted(path for path in (package / "lastgood").glob("*.py") if path.name not in _LEFT_OUT)
    contents = {
        "__main__.py": _MAIN,
        "router_agent/__init__.py": (package / "__init__.py").read_text(),
        **{f"router_agent/lastgood/{path.name}": path.read_text() for path in modules},
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in contents.items():
            file.writestr(zipfile.ZipInfo(name, _TIME), text)
    return _FIRST + archive.getvalue()


def main() -> None:
    """Write the program where the first argument says."""
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(packed())
    draft.replace(path)


if __name__ == "__main__":
    main()
