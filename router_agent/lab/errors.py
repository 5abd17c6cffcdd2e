"""What can go wrong in the lab."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot be built or does not behave; the message says what was found and expected."""


class TableError(LabError):
    """A table file cannot be used; the message has the file, the place, what was found and expected."""
