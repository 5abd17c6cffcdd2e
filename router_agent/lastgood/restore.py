"""Put one path back as it was. What has begun may be cut short anywhere and begun again.

A full disk is a reason why a change went wrong, so none may stand in the way: what cannot be written anew
is the kept file itself, moved into its place, which takes no room. The copy is one content poorer then.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from router_agent.lastgood import drained, durable
from router_agent.lastgood.copies import Copies, Copy
from router_agent.lastgood.entries import Entry, below

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class GoneError(Exception):
    """What a link is to lead to is not there any more."""


def put_back(copies: Copies, copy: Copy, name: str, root: Path) -> str:
    """Make a path what a copy says; return what was done, in words.

    Raises:
        CopyError: the content in the copy is not what was kept.
        GoneError: a link would lead nowhere; it is left as it is.
        OSError: the path cannot be written; a directory is in its place, for example.
    """
    path, wanted = below(root, name), copy.entries.get(name)
    if wanted is None:
        durable.remove(path)
        return f"removed {name}"
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if wanted.kind == "link":
        _link(path, wanted)
        return f"restored {name} -> {wanted.target}"
    content = drained.as_now(name, copies.content(copy, name), root)
    try:
        durable.write(path, content, mode=wanted.mode, owner=wanted.owner)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _hand_over(copies.file(copy, name), path, wanted)
        return f"restored {name} with the copy's own file, for the disk is full"
    return f"restored {name}"


def _link(path: Path, wanted: Entry) -> None:
    if not (path.parent / wanted.target).exists():
        raise GoneError(f"{path}: found nothing at {wanted.target}, where it led; it stays as it is")
    draft = durable.draft_of(path)
    draft.unlink(missing_ok=True)
    draft.symlink_to(wanted.target)
    os.chown(draft, *wanted.owner, follow_symlinks=False)
    draft.replace(path)
    durable.sync_directory(path.parent)


def _hand_over(kept: Path, path: Path, wanted: Entry) -> None:
    """Move the kept file into place; it is on the same file system (`entries.elsewhere`)."""
    os.chown(kept, *wanted.owner)
    kept.chmod(wanted.mode)
    kept.replace(path)
    durable.sync_directory(path.parent)
