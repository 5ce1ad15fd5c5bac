"""A regular expression over normal text that says no quickly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from mailfleet_router.decisions.shaping.values import PolicyError


class Pattern(NamedTuple):
    """An expression, and words without one of which no text can match it: looking for them is much faster."""

    needs: tuple[str, ...]
    """Empty: nothing is known."""
    expression: re.Pattern[str]

    def found(self, text: str) -> bool:
        """Is the expression found in `text`, which is in lower case?"""
        if not self.needs:
            return self.expression.search(text) is not None
        for need in self.needs:
            if need in text:
                return self.expression.search(text) is not None
        return False


_KEPT = re.compile(r"(\\.|\(\?P)", re.DOTALL)


def pattern(text: str) -> Pattern:
    """The pattern of `text`, whatever the case of its letters. Raises PolicyError.

    It is written in lower case, as the texts are, because an expression that ignores case is many times slower;
    escapes (`\\S`, `\\b`) and the mark of group names keep their case.
    """
    lowered = "".join(part if index % 2 else part.lower() for index, part in enumerate(_KEPT.split(text)))
    try:
        expression = re.compile(lowered)
    except (re.error, OverflowError, RecursionError) as error:
        raise PolicyError(f"{text!r} is no regular expression: {error}") from None
    if expression.flags & re.IGNORECASE:
        return Pattern((), expression)
    return Pattern(tuple(sorted(_needs(parser.parse(lowered)))), expression)


def _needs(items: Iterable[tuple[Any, Any]]) -> frozenset[str]:
    # Of all that every match must contain, the set whose shortest word is longest.
    found: list[frozenset[str]] = []
    run = ""
    for kind, value in items:
        if kind is kinds.LITERAL:
            run += chr(value)
            continue
        found.append(frozenset({run}))
        run = ""
        found.append(_needs_of(kind, value))
    found.append(frozenset({run}))
    return max(found, key=lambda words: (min((len(word) for word in words), default=0), -len(words))) - {""}


def _needs_of(kind: Any, value: Any) -> frozenset[str]:
    if kind is kinds.SUBPATTERN:
        return _needs(value[-1])
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT) and value[0] >= 1:
        return _needs(value[2])
    if kind is kinds.BRANCH:
        each = [_needs(branch) for branch in value[1]]
        return frozenset().union(*each) if all(each) else frozenset()
    return frozenset()
