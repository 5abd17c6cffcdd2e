"""A drain (RFC 8326) is no part of the configuration: it is neither kept nor taken back.

While a router is drained, frr.conf has the lines that have FRR come back drained. Who drains or undrains
between keeping a copy and going back to it, an operator or the host itself, is right afterwards too.
"""

from __future__ import annotations

import re
from pathlib import Path

CONFIGURATION = "/etc/frr/frr.conf"
MARK = "/run/router-agent/drained"
"""There while the router is drained."""
_LINE = "bgp graceful-shutdown"
_COMMENT = "! Drained (RFC 8326): router-agent undrain takes this out."
_BLOCK = f"{_COMMENT}\n{_LINE}\n!\n"
"""As router_agent.drain writes it."""
_INSTANCE = re.compile(r"^router bgp\b", re.MULTILINE)


def without(name: str, content: bytes) -> bytes:
    """Return the content of a path without the lines of a drain."""
    if name != CONFIGURATION:
        return content
    text = content.decode(errors="surrogateescape").replace(_BLOCK, "")
    lines = text.splitlines(keepends=True)
    kept = (line for line in lines if line.strip() not in (_LINE, _COMMENT))
    return "".join(kept).encode(errors="surrogateescape")


def as_now(name: str, content: bytes, root: Path) -> bytes:
    """Return a content that was kept, with the lines of a drain if the router is drained now."""
    if name != CONFIGURATION:
        return content
    plain = without(name, content)
    if not (root / MARK.lstrip("/")).exists():
        return plain
    text = plain.decode(errors="surrogateescape")
    instance = _INSTANCE.search(text)
    if instance is None:
        return plain
    at = instance.start()
    return f"{text[:at]}{_BLOCK}{text[at:]}".encode(errors="surrogateescape")
