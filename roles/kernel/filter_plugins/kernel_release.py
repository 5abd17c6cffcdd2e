# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filter: which kernel a Debian package brings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


def kernel_release(description: str) -> str:
    """Return the release of the kernel that a package depends on, empty when it depends on none.

    Debian's linux-image-amd64 depends on ``linux-image-RELEASE (= VERSION)``, where RELEASE is what ``uname
    -r`` prints.

    Args:
        description: what ``apt-cache show PACKAGE=VERSION`` prints.
    """
    depends = re.search(r"^Depends: (.*)$", description, re.MULTILINE)
    found = re.search(r"\blinux-image-(\d[^\s,(]*)", depends[1]) if depends else None
    return found[1] if found else ""


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by name."""
        return {"kernel_release": kernel_release}
