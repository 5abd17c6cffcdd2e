"""Files that others read while they are replaced, in directories that others may write to."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def replace(path: Path, text: str, *, like: Path | None = None, mode: int = 0o644) -> None:
    """Put a text into a file at once, so that a reader sees the old one or the new one.

    The new file is made under a name that nobody can know before, and never through a link.

    Args:
        path: the file; its directory is made when there is none.
        text: all of its content.
        like: file whose owner and permissions the new one gets; `mode` then does not count.
        mode: permissions.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            if like is not None:
                found = like.stat()
                os.fchown(file.fileno(), found.st_uid, found.st_gid)
                mode = found.st_mode & 0o7777
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            new.unlink()
        raise
