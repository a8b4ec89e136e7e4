"""Loading frames of several types at once: parents first, and what was withdrawn closed children first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Literal

import polars as pl

from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.lake.write import UpsertReport
from vxdata.schemas.registry import registry
from vxdata.sdk.client import Client
from vxdata.sdk.namespace import Namespace

Progress = Callable[[str, UpsertReport], None]
"""Called after each table with its namespace and what has been done there so far."""


def ingest(
    client: Client,
    frames: Mapping[str, pl.DataFrame],
    *,
    missing: Literal["keep", "delete"] = "keep",
    datasources: Sequence[str] | None = None,
    valid_from: str | date | datetime | None = None,
    on_invalid: Literal["fail", "skip"] = "fail",
    reason: str | None = None,
    progress: Progress | None = None,
) -> dict[str, UpsertReport]:
    """Make the resources of several types be as frames say; running it again writes nothing.

    Args:
        client: the lake's client.
        frames: a frame for each namespace, as `Namespace.upsert` takes it.
        missing: "delete" closes what the frames lack, children before parents.
        datasources: with "delete": look for such resources in these datasources instead of those that a frame names.
        valid_from: the instant of the new versions, for loading history.
        on_invalid: "fail" or "skip", as in `Namespace.upsert`; a failure leaves the tables before it loaded.
        reason: why, for the audit log.
        progress: called after each table.

    Returns:
        One report for each namespace, root first.

    Raises:
        InvalidInputError: an unknown namespace, or rows that cannot be written.
    """
    names = [name for name in registry().namespaces() if name in frames]
    for name in frames:
        if name not in names:
            raise InvalidInputError(f"unknown namespace {name!r}.{did_you_mean(name, registry().namespaces())}")
    options: dict[str, Any] = {"valid_from": valid_from, "on_invalid": on_invalid, "reason": reason}
    closing: dict[str, Any] = options | {
        "missing": missing,
        "datasources": datasources if missing == "delete" else None,
    }
    reports: dict[str, UpsertReport] = {}
    for name in names:
        is_last = name == names[-1]  # nothing that comes later hangs on its resources: one commit does both
        reports[name] = _namespace(client, name).upsert(frames[name], **(closing if is_last else options))
        if progress:
            progress(name, reports[name])
    if missing == "delete":
        for name in reversed(names[:-1]):
            closed = _namespace(client, name).upsert(frames[name], **closing)
            reports[name] = replace(reports[name], deleted=closed.deleted)
            if progress and closed.deleted:
                progress(name, reports[name])
    return reports


def _namespace(client: Client, name: str) -> Namespace[Any]:
    namespace: Namespace[Any] = getattr(client, name)
    return namespace
