"""Words of the query text: where each stands, what it means, and errors that point at the place.

Source: docs/query-text.md, "Grammar".
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from vxdata.errors import InvalidInputError

TokenKind = Literal["word", "field", "text", "number", "operator", "end"]

PLAIN_NAME = re.compile(r"[^\W\d]\w*")
"""A field's name that needs no backticks, if it is no reserved word."""

RESERVED = frozenset({"and", "or", "not", "in", "is", "between", "has_ancestor", "null", "true", "false", "inf"})
"""Words that stand for no field, unless in backticks; upper and lower case do not matter."""

_PATTERN = re.compile(
    r"""(?P<blank>\s+)
    |(?P<field>`(?:[^`]|``)*`)
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<number>[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf\b)(?!\w|-\d))
    |(?P<word>[^\W\d]\w*)
    |(?P<operator>==|!=|<=|>=|<(?!>)|[>(),])""",
    re.VERBOSE,
)
_WRONG = (  # pattern of what people write, what to write
    (r"['\"`]", "no closing {found} for the one that opens here; inside a text a quote is written twice"),
    (r"[‘’‚“”„«»]", "curly quotes are no quotes; write ' or \""),
    (r"<>", "<> is no comparison; write !="),
    (r"=", "= is no comparison; write =="),
    (r"&&?", "{found} joins nothing here; write and"),
    (r"\|\|?", "{found} joins nothing here; write or"),
    (r"[~!]", "{found} negates nothing here; write not"),
    (r"[\[\]{}]", "a list stands in parentheses, as in ('a', 'b')"),
    (r"\.", "a field is its name alone, without F. before it and .method() behind"),
    (r"\d{4}-\d\d?-\d\d?\b", "a date stands in quotes, as in '2024-01-31'"),
    (r"[+-]?[\d.]+\w*", "{found} is no number, and a text stands in quotes"),
    (r"(?s).", "{found} has no meaning here"),
)
_MOST_BEFORE, _MOST_SHOWN = 48, 70


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the text.

    Attributes:
        kind: what it is; a double-quoted text may also name a field.
        source: as it stands in the text.
        start: where it starts.
        value: the name, text or number that it stands for; of a word, in lower case.
    """

    kind: TokenKind
    source: str
    start: int
    value: Any


def tokens_of(text: str) -> Iterator[Token]:
    """Return the tokens of a text; the last one is its end.

    Raises:
        InvalidInputError: something that is no token.
    """
    at = 0
    while at < len(text):
        match = _PATTERN.match(text, at)
        if match is None:
            raise _no_token(text, at)
        if match.lastgroup != "blank":
            yield _token(text, match)
        at = match.end()
    yield Token("end", "", len(text.rstrip()), None)


def fault(text: str, at: int, message: str) -> InvalidInputError:
    """Return an error that shows the text with a caret under a place.

    Args:
        text: the whole text.
        at: the place in it.
        message: what was expected there.
    """
    first = text.rfind("\n", 0, at) + 1
    line = text[first:].partition("\n")[0]
    start = max(0, at - first - _MOST_BEFORE)
    end = start + _MOST_SHOWN
    before = ("…" if start else "") + _printable(line[start : at - first])
    behind = _printable(line[at - first : end]) + ("…" if len(line) > end else "")
    return InvalidInputError(f"{message}\n  {before}{behind}\n  {' ' * _cells(before)}^")


def _token(text: str, match: re.Match[str]) -> Token:
    kind: Any = match.lastgroup
    source, start = match[0], match.start()
    match kind:
        case "field" | "text":
            quote = source[0]
            return Token(kind, source, start, source[1:-1].replace(quote * 2, quote))
        case "number":
            return Token(kind, source, start, _number(text, start, source))
        case "word":
            return Token(kind, source, start, source.lower())
    return Token(kind, source, start, source)


def _number(text: str, start: int, source: str) -> int | float:
    try:
        return int(source) if source.lstrip("+-").isdecimal() else float(source)
    except ValueError:  # Python reads no integer of more than some thousand digits
        raise fault(text, start, "the number has too many digits.") from None


def _no_token(text: str, at: int) -> InvalidInputError:
    found = ((re.compile(pattern).match(text, at), words) for pattern, words in _WRONG)
    match, words = next((match, words) for match, words in found if match)
    return fault(text, at, words.format(found=_printable(match[0])) + ".")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "·" for c in text)


def _cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
