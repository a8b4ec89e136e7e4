"""Loading frames of several types at once: parents first, and what was withdrawn closed children first."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Literal

import polars as pl

from vxdata.catalog.table import TableSpec, all_specs, table_spec
from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.lake import upsert as upserts
from vxdata.lake.batch import Batch, check_batch_id, is_complete
from vxdata.lake.scratch import Scratch
from vxdata.lake.slices import to_slices
from vxdata.lake.upsert import UpsertReport
from vxdata.schemas.registry import registry
from vxdata.sdk.client import Client
from vxdata.sdk.namespace import check_frame, refuse_unknown_datasources, upsert_options
from vxdata.sdk.session import check_flags

Progress = Callable[[str, UpsertReport], None]
"""Told after each commit, with its namespace, what has been done there so far."""


def ingest(
    client: Client,
    frames: Mapping[str, pl.DataFrame | pl.LazyFrame],
    *,
    missing: Literal["keep", "delete"] = "keep",
    datasources: Sequence[str] | None = None,
    cascade: bool = False,
    valid_from: str | date | datetime | None = None,
    on_invalid: Literal["fail", "skip"] = "fail",
    batch_id: str | None = None,
    mentioned: Mapping[str, Iterable[str]] | None = None,
    dry_run: bool = False,
    reason: str | None = None,
    progress: Progress | None = None,
) -> dict[str, UpsertReport]:
    """Make the resources of several types be as frames say; running it again writes nothing.

    All frames are validated before anything is written, and so is what they lack; all commits share one id.

    Args:
        client: the lake's client.
        frames: a frame for each namespace, as `Namespace.upsert` takes it.
        missing: "delete" closes what the frames lack, children before parents.
        datasources: with "delete": look for such resources in these datasources instead of those that a frame names.
        cascade: whether such a resource may take its live descendants of other types with it; refused otherwise.
        valid_from: the instant of the new versions, for loading history.
        on_invalid: "fail" writes nothing if a row is invalid; "skip" writes the others. With missing="delete"
            it is refused beside a row that names no resource: what that row means might be closed.
        batch_id: a name for what is written (printable, 256 characters at most), under which it is written once in
            each table: what a killed run has committed is a no-op, and the rest is done.
        mentioned: with "delete": for each namespace, identifiers that are not closed though its frame has no rows of
            them.
        dry_run: report what would be done; nothing is written, and no lake is made.
        reason: why, for the audit log.
        progress: told after each commit.

    Returns:
        One report for each namespace, root first.

    Raises:
        NotFoundError: `datasources` names one that there is not, and the frames make none.
        InvalidInputError: an unknown namespace, rows that cannot be written, or what is to be closed has live children.
    """
    known = {spec.namespace: spec for spec in all_specs()}
    if not isinstance(frames, Mapping):
        raise InvalidInputError(
            f"ingest: a mapping of namespaces to frames is expected, such as {{'patients': frame}}, not a "
            f"{type(frames).__name__}."
        )
    for name, frame in frames.items():
        if name not in known:
            raise InvalidInputError(f"unknown namespace {name!r}.{did_you_mean(str(name), known)}")
        check_frame(f"ingest, {name}", frame)
    check_flags("ingest", dry_run=dry_run)
    session = client._session
    stamp, options = (
        session.stamp("ingest", reason, batch_id),
        upsert_options(missing, datasources, cascade, valid_from, on_invalid),
    )

    def told(spec: TableSpec, report: UpsertReport) -> None:
        if progress is not None:
            progress(spec.namespace, report)

    others = mentioned or {}
    with Scratch() as scratch:
        wanted = {
            spec: to_slices(spec, frames[name], scratch, others.get(name, ()))
            for name, spec in known.items()
            if name in frames
        }
        if not wanted:
            return {}
        if options.datasources and "datasources" not in frames:
            refuse_unknown_datasources("ingest", session.lake, options.datasources, wanted)
        if dry_run:
            reports = upserts.plan_upsert(session.lake, wanted, options, stamp, scratch)
        else:
            reports = upserts.upsert(session.lake, wanted, options, stamp, scratch, told)
    return {spec.namespace: report for spec, report in reports.items()}


def is_ingested(client: Client, batch_id: str, namespaces: Iterable[str]) -> bool:
    """Whether a batch is committed in all of some namespaces, so that to ingest it again does nothing."""
    specs = [table_spec(registry().of_namespace(name)) for name in namespaces]
    return is_complete(client._session.lake, specs, Batch(check_batch_id(batch_id)))
