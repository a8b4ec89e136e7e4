"""Instants: UTC datetimes with microseconds, the only form of time that VxData stores."""

from datetime import UTC, date, datetime
from typing import Any

MICROSECONDS_PER_SECOND = 1_000_000


def to_instant(value: Any) -> Any:
    """Turn an ISO string, a date or a datetime into an aware UTC datetime.

    Args:
        value: an ISO 8601 string, a `date` (its first instant) or a `datetime`; without an offset it is taken as UTC.

    Returns:
        The UTC datetime; a value of another kind is handed back for the caller to judge.

    Raises:
        ValueError: a string that is no ISO 8601 date or datetime, or an instant before year 1 or after 9999 in UTC.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        try:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{value.isoformat()} has no year between 1 and 9999 in UTC") from None
    return value
