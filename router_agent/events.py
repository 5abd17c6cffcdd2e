"""Names of the events that the log tells of: stable words for programs, whatever becomes of the sentences.

A log call carries one as ``extra=about(Event.FIB_LOST, problem=...)``. Each event has one level and one set
of fields; docs/operations.md lists them, and a test holds the list against the calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from enum import StrEnum
from typing import TypeAlias

Field: TypeAlias = str | int | float | Sequence[str] | Mapping[str, int] | None

PIPELINE: ContextVar[str | None] = ContextVar("pipeline", default=None)
"""The pipeline whose work this is: every line of its feed, its FIB and its mirror tells it."""


class Event(StrEnum):
    """What happened. An event that is here is never renamed."""

    CONFIGURED = "configured"
    CONFIGURATION_REFUSED = "configuration-refused"
    STARTED = "started"
    STOPPING = "stopping"
    STOPPED_BY_FAULT = "stopped-by-fault"
    CONTROL_REFUSED = "control-refused"
    CONTROL_FAULT = "control-fault"
    SYSTEMD_UNHEARD = "systemd-unheard"

    STATE = "state"
    IN_SYNC = "in-sync"
    FIB_LOST = "fib-lost"
    FEED_LOST = "feed-lost"
    OVERRUN = "overrun"
    READING_UNCLEAN = "reading-unclean"
    RESYNC_ASKED = "resync-asked"
    RESYNC_DONE = "resync-done"
    ROUTES_REFUSED = "routes-refused"
    CAPACITY_REACHED = "capacity-reached"
    CAPACITY_AGAIN = "capacity-again"
    CAPACITY_UNKNOWN = "capacity-unknown"
    CONFIRMATIONS_WITHDRAWN = "confirmations-withdrawn"

    LINK_DOWN = "link-down"
    LINK_UP = "link-up"
    REPOINTED = "repointed"
    NEXT_HOP_REFUSED = "next-hop-refused"
    ENTRY_REFUSED = "entry-refused"
    NEIGHBOUR_REFUSED = "neighbour-refused"
    INTERFACE_MISSING = "interface-missing"
    PAIRS_UNREADABLE = "pairs-unreadable"
    INTERFACE_DELETED = "interface-deleted"
    TAKEN_OFF = "taken-off"
    TABLE_MADE = "table-made"
    SOURCE_DIFFERS = "source-differs"

    DRIFT = "drift"
    DRIFT_SHARED = "drift-shared"
    UNEXPLAINED = "unexplained"
    AUDIT_BROKEN_OFF = "audit-broken-off"

    SESSION_UP = "session-up"
    SESSION_DOWN = "session-down"
    SESSION_REMOVED = "session-removed"
    SESSION_RESET = "session-reset"
    SESSION_INCOMPLETE = "session-incomplete"
    TABLE_COMPLETE = "table-complete"
    ROUTES_EXPIRED = "routes-expired"
    SPEAKER_CONNECTED = "speaker-connected"
    SPEAKER_LOST = "speaker-lost"
    SPEAKER_REFUSED = "speaker-refused"
    SPEAKER_COMPLETE = "speaker-complete"
    SPEAKER_FAULT = "speaker-fault"
    SPEAKER_STOPPING = "speaker-stopping"
    SPEAKER_EXPIRED = "speaker-expired"
    STREAM_MALFORMED = "stream-malformed"

    MIRRORED = "mirrored"
    MIRROR_REFUSED = "mirror-refused"
    MIRROR_LOST = "mirror-lost"
    MIRROR_BACK = "mirror-back"
    TABLE_NOT_FOLLOWED = "table-not-followed"
    SOLICIT_FAILED = "solicit-failed"

    LINES_LOST = "lines-lost"


def about(event: Event, **fields: Field) -> dict[str, object]:
    """Return what a log call carries besides its sentence: the event and its fields.

    Args:
        event: what happened.
        fields: what programs shall not have to read out of the sentence. Units are in the names.
    """
    if "pipeline" not in fields and (name := PIPELINE.get()) is not None:
        fields = {"pipeline": name, **fields}
    return {"event": event, "fields": fields}
