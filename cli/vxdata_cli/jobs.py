"""How a scheduled job speaks: lines of JSON on stderr, and an exit code that tells a scheduler what to do."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from vxdata.errors import CommitUnknownError, ConflictError, StorageError
from vxdata_cli.out import out, to_plain
from vxdata_cli.upkeep import A_PERSON_IS_NEEDED

if TYPE_CHECKING:
    from vxdata.sdk.maintain import MaintainPolicy, Outcome
    from vxdata.sdk.settings import Settings

NOTHING_TO_DO, TRY_AGAIN = 7, 9
Event = Callable[[str, Mapping[str, Any]], None]


@contextmanager
def job_log() -> Iterator[Event]:
    """Give a function that writes a line for each event; an error is a line too, and becomes an exit code."""
    _tell("begin", {})
    try:
        yield _tell
    except (ConflictError, CommitUnknownError, StorageError) as error:
        again = not isinstance(error, StorageError) or error.retryable
        _write("failed", {"error": type(error).__name__, "message": str(error), "try_again": again})
        raise typer.Exit(TRY_AGAIN if again else A_PERSON_IS_NEEDED) from error
    except Exception as error:  # a bug, too, is told where the job's log is read
        _write("failed", {"error": type(error).__name__, "message": str(error), "try_again": False})
        raise
    _tell("end", {})


def _tell(event: str, details: Mapping[str, Any]) -> None:
    if not out.quiet:
        _write(event, details)


def _write(event: str, details: Mapping[str, Any]) -> None:
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **details}
    sys.stderr.write(json.dumps(to_plain(line), ensure_ascii=False) + "\n")
    sys.stderr.flush()


def exit_code_of(outcome: "Outcome") -> int:
    """Return the exit code of a maintenance."""
    return {"done": 0, "nothing to do": NOTHING_TO_DO, "a person is needed": A_PERSON_IS_NEEDED}[outcome]


def policy_of(settings: "Settings") -> "MaintainPolicy":
    """Return the policy of the nearest settings file that has a section [maintain], else the default."""
    from vxdata.sdk.maintain import MaintainPolicy, to_policy

    for file in settings.files:
        if "maintain" in file.sections:
            return to_policy(file.sections["maintain"], str(file.path))
    return MaintainPolicy()
