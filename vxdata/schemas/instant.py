"""Instants: UTC datetimes with microseconds, the only form of time that VxData stores."""

from datetime import UTC, date, datetime
from typing import Any

MICROSECONDS_PER_SECOND = 1_000_000
FIRST, END = -62_135_596_800_000_000, 253_402_300_800_000_000
"""The first instant of the year 1, and that after the year 9999, in microseconds since 1970."""


def is_no_time(value: Any) -> bool:
    """Whether a value is pandas' NaT: a datetime that equals nothing, itself included."""
    return isinstance(value, datetime) and bool(value != value)


def to_instant(value: Any) -> Any:
    """Turn an ISO string, a date or a datetime into an aware UTC datetime.

    Args:
        value: an ISO 8601 string, a `date` (its first instant) or a `datetime`; without an offset it is taken as UTC.

    Returns:
        The UTC datetime; a value of another kind is handed back for the caller to judge.

    Raises:
        ValueError: a string that is no ISO 8601 date or datetime, NaT, or an instant beyond the years 1 to 9999 in UTC.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        if is_no_time(value):
            raise ValueError("NaT is no instant")
        if type(value) is not datetime:  # pandas' has nanoseconds, which are not stored
            value = datetime.combine(value.date(), value.timetz())
        try:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{value.isoformat()} has no year between 1 and 9999 in UTC") from None
    return value
