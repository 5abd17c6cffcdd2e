"""The last samples of figures that are drawn: columns of fixed length, written round and round.

What is kept is at most `samples` rows of `columns` columns of 8 bytes, whatever is seen: a port that comes
and goes takes the place of one that has not been seen for as long as samples are kept.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan

SAMPLES = 600
COLUMNS = 400


@dataclass(frozen=True)
class Part:
    """Samples, oldest first.

    Attributes:
        cursor: of the newest; what is asked for after it is what came since.
        whole: what the reader has does not continue with this, and is to be dropped.
        at: seconds since 1970, for each sample.
        columns: by name, one value for each of `at`; NaN where there was none.
    """

    cursor: str
    whole: bool
    at: list[float]
    columns: dict[str, list[float]] = field(default_factory=dict)


class History:
    """A ring of samples.

    Args:
        samples: how many are kept.
        columns: how many figures; what is over is left out and counted.

    Attributes:
        left_out: figures of the last sample for which there was no column.
    """

    def __init__(self, *, samples: int = SAMPLES, columns: int = COLUMNS) -> None:
        self._samples = samples
        self._limit = columns
        self._at = _empty(samples)
        self._columns: dict[str, array[float]] = {}
        self._seen: dict[str, int] = {}
        self._count = 0
        # Numbers start anew with the process: a cursor of an earlier one must not be taken for ours.
        self._epoch = secrets.token_hex(4)
        self.left_out = 0

    def __len__(self) -> int:
        return min(self._count, self._samples)

    @property
    def cursor(self) -> str:
        """Where the newest sample is."""
        return f"{self._epoch}.{self._count}"

    def add(self, at: float, values: Mapping[str, float]) -> None:
        """Keep one sample.

        Args:
            at: seconds since 1970.
            values: figures by name; one that was there before and is not now is NaN in this sample.
        """
        self._forget()
        place = self._count % self._samples
        self._at[place] = at
        for column in self._columns.values():
            column[place] = nan
        self.left_out = 0
        for name, value in values.items():
            known = self._column(name)
            if known is None:
                self.left_out += 1
                continue
            known[place] = value
            self._seen[name] = self._count
        self._count += 1

    def since(self, cursor: str | None = None) -> Part:
        """Return the samples after a cursor; all, when it is none of ours or they have gone."""
        have = self._number(cursor)
        oldest = self._count - len(self)
        whole = have is None or have < oldest
        first = oldest if have is None else max(have, oldest)
        places = [number % self._samples for number in range(first, self._count)]
        return Part(
            cursor=self.cursor,
            whole=whole,
            at=[self._at[place] for place in places],
            columns={name: [column[place] for place in places] for name, column in self._columns.items()},
        )

    def _column(self, name: str) -> array[float] | None:
        if name not in self._columns:
            if len(self._columns) >= self._limit:
                return None
            self._columns[name] = _empty(self._samples)
        return self._columns[name]

    def _forget(self) -> None:
        """Drop columns that have no value in any sample that is kept."""
        for name in [n for n, seen in self._seen.items() if seen <= self._count - self._samples]:
            del self._columns[name], self._seen[name]

    def _number(self, cursor: str | None) -> int | None:
        epoch, _, text = (cursor or "").partition(".")
        if epoch != self._epoch or not (text.isascii() and text.isdecimal()) or len(text) > 18:
            return None
        number = int(text)
        return number if number <= self._count else None


def _empty(samples: int) -> array[float]:
    return array("d", [nan]) * samples
