# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filter: what an operator is told when a change was not confirmed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def commit_confirm_message(
    failure: str,
    status: Mapping[str, Any] | None,
    host: str,
    command: str,
) -> str:
    """Return why a run failed and what becomes of the host.

    Args:
        failure: why.
        status: what ``last-good status --json`` said; None when nothing was armed or nobody answers.
        host: its name in the inventory.
        command: path of last-good on the host.
    """
    if status is None:
        return f"{host}: {failure}"
    if not status["armed"]:
        last = status.get("last")
        back = f" It went back at {last['at']}: {last['reason']}." if last else ""
        return f"{host}: {failure}\nNothing is armed any more.{back}"
    changed = ", ".join(status["changed"]) or "nothing"
    return (
        f"{host}: {failure}\n"
        f"Changed on the host: {changed}.\n"
        f"It goes back by itself at {status['until']} ({status['seconds_left']} s from now), "
        "also when it is rebooted.\n"
        f"To stay as it is: {command} disarm\n"
        f"To go back now:   {command} rollback"
    )


class FilterModule:
    """The filters, by the names they have in templates."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name to filter."""
        return {"commit_confirm_message": commit_confirm_message}
