"""What a scenario is refused with."""

from __future__ import annotations


class ScenarioError(ValueError):
    """A scenario that makes no sense; the message says what was found, what was expected and what to do."""
