"""Identifiers: `<type>/<segment>[/<segment>...]`, the stable name of a resource.

A segment is made of printable characters other than `/`, without leading or trailing blanks, and is neither `.` nor
`..`; an identifier has at most 512 characters. Real patient codes hold blanks, `=` and `#`.

Source: design of record, section 2.
"""

from typing import Any

from vxdata.errors import InvalidInputError

MAX_LENGTH = 512


def identifier_fault(identifier: Any) -> str | None:
    """Say what is wrong with an identifier, or None if nothing is."""
    if not isinstance(identifier, str):
        return f"a string is expected, not {type(identifier).__name__}"
    if len(identifier) > MAX_LENGTH:
        return f"it has {len(identifier)} characters, more than {MAX_LENGTH}"
    type_name, *segments = identifier.split("/")
    if not type_name or not segments:
        return "'<type>/<segment>[/<segment>...]' is expected, such as 'patient/BB00017'"
    return next((fault for segment in segments if (fault := _segment_fault(segment))), None)


def _segment_fault(segment: str) -> str | None:
    if not segment:
        return "a segment is empty"
    if segment in (".", ".."):
        return f"a segment is {segment!r}"
    if segment != segment.strip():
        return f"the segment {segment!r} starts or ends with a blank"
    if not segment.isprintable():
        return f"the segment {segment!r} holds a character that is not printable"
    return None


def check_identifier(identifier: Any) -> str:
    """Return the identifier if it is well formed.

    Raises:
        InvalidInputError: it is not; the message names the value and the fault.
    """
    if fault := identifier_fault(identifier):
        raise InvalidInputError(f"{identifier!r} is no identifier: {fault}.")
    return str(identifier)


def type_of(identifier: str) -> str:
    """Return the type that an identifier starts with: `volume` of `volume/DA001/s/1`."""
    return identifier.partition("/")[0]
