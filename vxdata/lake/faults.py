"""The one place where errors of deltalake, obstore, Polars and the operating system become VxData's."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from vxdata.errors import StorageError, VxDataError

LOST_COLUMN = (
    "a data file has a column that the log has lost: a checkpoint or an entry of the log is damaged; 'vxdata verify' "
    "lists all that is, restore it from a backup"
)
_REMEDIES: tuple[tuple[str, str, bool], ...] = (
    # pattern in the message, what to tell, whether trying again can help
    (r"NoSuchBucket|bucket does not exist", "the bucket does not exist; check its name and the endpoint", False),
    (
        r"(?<![0-9A-Za-z])403(?![0-9A-Za-z])|AccessDenied|Forbidden|PermissionDenied|Unauthenticated|InvalidAccessKeyId|SignatureDoesNotMatch"
        r"|ExpiredToken|lacked the necessary privileges",
        "access was denied; check the credentials (AWS_PROFILE), their rights on this bucket, and that they include "
        "s3:ListBucket: without it a missing key answers 403 too",
        False,
    ),
    (r"File too large|os error 27", "the file is too large for this disk or its limits; raise them", False),
    (r"No space left|os error 28", "the disk is full; free some space and run it again: nothing was committed", False),
    (r"Read-only file system|Permission denied|os error 13|os error 30", "the folder cannot be written", False),
    (r"File name too long|os error 36", "a datasource's identifier is too long to name a folder; shorten it", False),
    (
        r"Connection refused|dns error|error trying to connect|ConnectError|client error \(Connect\)",
        "the store cannot be reached; check AWS_ENDPOINT_URL and the network",
        True,
    ),
    (
        r"No such file|os error 2\b|NotFound|NoSuchKey|(?<![0-9A-Za-z])404(?![0-9A-Za-z])",
        "a file of the lake is missing; run 'vxdata verify'",
        False,
    ),
    (r"extra column in file outside of expected schema", LOST_COLUMN, False),
    (r"CommitFailedError|AlreadyExists|(?<![0-9A-Za-z])412(?![0-9A-Za-z])", "another commit was first", True),
)
_BROKEN = re.compile(
    r"error reading a body|(request or response|list response) body|IncompleteBody|error sending request"
)
_LATE = re.compile(r"timed out|client error \(Connect\)|ConnectError|Connection refused|dns error")
_UNANSWERED = re.compile(
    r"(status code:|with status) (?!404)\d|already exists|PermissionDenied|Unauthenticated|necessary privileges"
)
_SECRET = re.compile(r"(?i)(secret|token|password|signature|credential)[^\s,;<>=:]*\s*[=:>]\s*[^\s,;&<]+")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BRANCH = re.compile(r"\s*↳\s*")
_USER_INFO = re.compile(r"://[^/@\s]+:[^/@\s]+@")
_PERMANENT_ERRNO = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.EDQUOT, errno.ENAMETOOLONG, errno.EFBIG}
_OF_PLANS = (pl.exceptions.SchemaError, pl.exceptions.DuplicateError, pl.exceptions.ColumnNotFoundError)
"""What Polars says of columns: asked again it says the same."""

_MOST_CHARACTERS = 400


@contextmanager
def translated(uri: str, operation: str) -> Iterator[None]:
    """Turn any error of a lower layer into a `StorageError` that names the URI and the operation.

    Args:
        uri: what was worked on.
        operation: what was tried, as words that read well before the URI.
    """
    try:
        yield
    except VxDataError:
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        if not is_lower_layer(error):
            raise
        raise to_storage_error(error, uri=uri, operation=operation) from error


def is_lower_layer(error: BaseException) -> bool:
    """Whether an exception comes from a store, a driver or the system (and not from a fault in our own code)."""
    module = type(error).__module__
    return (
        isinstance(error, (OSError, pl.exceptions.PolarsError))
        or module.startswith(("deltalake", "_internal", "obstore", "botocore", "pyarrow"))
        or type(error).__name__ == "PanicException"
    )


def is_broken_answer(error: BaseException) -> bool:
    """Whether a connection broke on the way, so that asking again at once can help.

    A client that waited in vain has used up its time, and one that could not connect has tried again already.
    """
    text = _whole_text(error)
    return is_lower_layer(error) and bool(_BROKEN.search(text)) and not _LATE.search(text)


def is_unanswered(error: BaseException) -> bool:
    """Whether an error says that a store did not answer, or refused to: it tells nothing of what is stored."""
    text = _whole_text(error)
    return any(pattern.search(text) for pattern in (_BROKEN, _LATE, _UNANSWERED))


def refuse_unanswered(error: BaseException) -> None:
    """Raise an error again that tells nothing of what is stored, so that it is not taken for damage."""
    if is_unanswered(error):
        raise error


def _whole_text(error: BaseException | None) -> str:
    texts = []
    while error is not None:
        texts.append(_one_line(error))
        error = error.__cause__
    return "\n".join(texts)


def _one_line(error: BaseException) -> str:
    """Return an error's kind and message; deltalake's kernel draws its causes as coloured branches of a tree."""
    return " ".join(_BRANCH.sub(": ", _COLOUR.sub("", f"{type(error).__name__}: {error}")).split())


def to_storage_error(error: BaseException, *, uri: str, operation: str) -> StorageError:
    """Return the `StorageError` for an exception, with the remedy where one is known and no secret."""
    text = _one_line(error)
    remedy, retryable = next(
        ((remedy, again) for pattern, remedy, again in _REMEDIES if re.search(pattern, text)), (None, True)
    )
    is_permanent = isinstance(error, OSError) and error.errno in _PERMANENT_ERRNO
    if is_permanent or isinstance(error, _OF_PLANS):
        retryable = False
    most = _MOST_CHARACTERS if remedy is None else _MOST_CHARACTERS // 3  # the whole is in the exception's cause
    short = _USER_INFO.sub("://***@", _SECRET.sub(r"\1=***", text))[:most]
    return StorageError(f"{remedy} ({short})" if remedy else short, uri=uri, operation=operation, retryable=retryable)
