"""What was done on the way back, and what did not work: the way goes on without it."""

from __future__ import annotations

from dataclasses import dataclass, field

from router_agent.lastgood.commands import SECONDS, run
from router_agent.lastgood.journal import NOTICE, WARNING, say


@dataclass
class Steps:
    """Steps that were taken.

    Attributes:
        done: in words, in order.
        faults: what did not work, and why.
    """

    done: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def did(self, words: str) -> None:
        """Note a step."""
        say(NOTICE, words)
        self.done.append(words)

    def failed(self, words: str) -> None:
        """Note what did not work."""
        say(WARNING, words)
        self.faults.append(words)

    def do(self, *words: str, seconds: float = SECONDS) -> bool:
        """Run a command, note it, and tell whether it succeeded."""
        done = run(*words, seconds=seconds)
        if done.ok:
            self.did(" ".join(words))
        else:
            self.failed(f"{' '.join(words)}: ended with {done.status} and said: {done.said}")
        return done.ok
