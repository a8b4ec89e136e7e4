"""The errors that VxData raises, grouped by what a caller can do about them.

A message says what was tried, the value, what was expected, and a hint. It may quote the caller's own input, never
stored values, and never a secret.

Source: design of record, section 6.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class VxDataError(Exception):
    """Base of all errors of VxData."""


class InvalidInputError(VxDataError, ValueError):
    """What was asked is wrong in itself: mend the call."""


class NotFoundError(VxDataError, KeyError):
    """What was asked for is not there (or not any more)."""

    def __str__(self) -> str:
        """Print the message; a plain `KeyError` would print its repr."""
        return str(self.args[0]) if self.args else ""


class AlreadyExistsError(VxDataError):
    """A resource with this identifier is live."""


class ConflictError(VxDataError):
    """Another writer was first: read again and decide anew. Retrying is safe."""

    retryable = True


class CommitUnknownError(VxDataError):
    """The store gave no answer in time, so nobody knows yet whether the commit landed.

    Attributes:
        token: pass it to `client.resolve(token)`, which finds out for good.
    """

    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self.token = token

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.token)


class StorageError(VxDataError):
    """The store failed or refused.

    Attributes:
        uri: the address that was used.
        operation: what was tried there.
        retryable: whether trying again later can help.
    """

    def __init__(self, message: str, *, uri: str, operation: str, retryable: bool) -> None:
        super().__init__(f"{operation} {uri}: {message}")
        self.uri, self.operation, self.retryable = uri, operation, retryable

    def __reduce__(self) -> tuple[Any, ...]:
        return _storage_error, (str(self), self.uri, self.operation, self.retryable)


def _storage_error(text: str, uri: str, operation: str, retryable: bool) -> StorageError:
    """Build a `StorageError` anew in another process."""
    message = text.removeprefix(f"{operation} {uri}: ")
    return StorageError(message, uri=uri, operation=operation, retryable=retryable)


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """Name the nearest known words, for the end of an error message.

    Args:
        value: the word that is unknown.
        known: the words that exist.

    Returns:
        `` Did you mean 'a' or 'b'?``, else a list of what there is, with a leading blank.
    """
    names = list(known)
    near = get_close_matches(value, names, n=3, cutoff=0.6)
    if near:
        return f" Did you mean {' or '.join(map(repr, near))}?"
    return f" Known: {', '.join(names)}." if names else ""


def sentence(text: str) -> str:
    """Return a text with an end, which a hint such as `did_you_mean` has already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def name_some(values: Iterable[str], most: int = 10) -> str:
    """List values for a message, cut after `most` with the count of the rest."""
    names = list(values)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest
