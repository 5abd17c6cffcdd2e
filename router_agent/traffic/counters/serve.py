"""Answers for counters of this host, line by line, until nobody asks any more; see `answers`.

One process answers both before and after a trial: nothing is started while packets flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from router_agent.traffic.counters.answers import Answer, Drop, Question
from router_agent.traffic.counters.source import CounterError, CounterSource


def answers(source: CounterSource, lines: Iterable[str]) -> Iterator[str]:
    """Yield the answer to each line."""
    for line in lines:
        yield answer(source, line).model_dump_json(exclude_none=True)


def answer(source: CounterSource, line: str) -> Answer:
    """Return the answer to one line."""
    try:
        question = Question.model_validate_json(line)
        if question.do == "read":
            return Answer(counters=source.read())
        return Answer(drops=[Drop.of(drop) for drop in source.drops(question.growth)])
    except ValidationError as error:
        return Answer(error=f"found {line[:80]!r}, expected a question: {error.error_count()} mistakes in it")
    except CounterError as error:
        return Answer(error=str(error))
