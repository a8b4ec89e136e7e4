"""Stored values as text for people: exact, on one line, and unable to command a terminal."""

import json
from datetime import date, datetime
from typing import Any


def shown_text(value: Any) -> str:
    """Return a value on one line, exact, with what is not printable escaped; nothing for null."""
    match value:
        case None:
            return ""
        case str():
            return escaped(value)
        case bool():
            return str(value).lower()
        case datetime():
            return instant_text(value)
        case date():
            return value.isoformat()
        case bytes():
            return value.hex()
        case list() | tuple() | dict():
            return escaped(json.dumps(value, ensure_ascii=False, default=shown_text))
    return str(value)


def instant_text(instant: datetime) -> str:
    """Return a UTC instant, with its microseconds where it has some."""
    return f"{instant:%Y-%m-%d %H:%M:%S}" + (f".{instant.microsecond:06d}" if instant.microsecond else "")


def escaped(text: str) -> str:
    """Return text whose control characters are escaped, so that stored data cannot command a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
