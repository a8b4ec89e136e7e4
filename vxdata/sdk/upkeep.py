"""Upkeep of a lake: what `client.compact` does, and what it tells."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import polars as pl

from vxdata.catalog.table import TableSpec, all_specs
from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.lake.checkpoint import settle_log
from vxdata.lake.compact import Folded
from vxdata.lake.compact import compact as fold_all
from vxdata.lake.foldable import BY_SCHEDULE, FoldPolicy
from vxdata.lake.snapshot import NO_TABLE
from vxdata.lake.trim import LEAST_DAYS, check_keep_days, trim_log
from vxdata.sdk.namespace import listed_datasources, refuse_unknown_datasources
from vxdata.sdk.session import Session

__all__ = ["BY_SCHEDULE", "CompactionReport", "FoldPolicy", "Folded", "compact", "specs_named"]

Progress = Callable[[Folded], None]
"""Told after each round of a partition."""

_FOLDED = {
    "namespace": pl.String(),
    "datasource_id": pl.String(),
    **dict.fromkeys(("files_before", "files_after", "rows", "folded", "bytes_before", "bytes_after"), pl.Int64()),
}


@dataclass(frozen=True)
class CompactionReport:
    """What a compaction did.

    Attributes:
        rounds: one row for each round of a partition: namespace, datasource_id, files_before, files_after, rows (read),
            folded (closings that became ends of versions), bytes_before, bytes_after.
        checkpoints: the tables that got a checkpoint, and its version.
        trimmed: the tables whose log was trimmed, and how many of its entries went.
        commit_id: the commits' id in the audit log; None if no file was rewritten.
    """

    rounds: pl.DataFrame = field(repr=False, compare=False)
    checkpoints: dict[str, int]
    trimmed: dict[str, int]
    commit_id: str | None = None

    @property
    def is_changed(self) -> bool:
        """Whether anything was written or deleted."""
        return self.commit_id is not None or bool(self.checkpoints) or bool(self.trimmed)


def compact(
    session: Session,
    namespaces: Sequence[str] = (),
    *,
    datasources: Sequence[str] | None = None,
    policy: FoldPolicy | None = None,
    keep_log_days: int = LEAST_DAYS,
    reason: str | None = None,
    progress: Progress = lambda _: None,
) -> CompactionReport:
    """Fold the tails of tables; see `Client.compact`."""
    stamp, lake = session.stamp("compact", reason), session.lake
    check_keep_days(keep_log_days)
    specs = specs_named(namespaces)
    named = None if datasources is None else listed_datasources("compact", datasources)
    lake.prepare_write(needs_lake=True)
    refuse_unknown_datasources("compact", lake, named or (), specs)
    lake.begin_write()
    done = fold_all(lake, specs, policy or FoldPolicy(), stamp, datasources=named, progress=progress)
    tables = [lake.table(spec) for spec in specs if lake.snapshot(spec).version != NO_TABLE]
    settled = {table.spec.namespace: settle_log(table) for table in tables}
    trimmed = {table.spec.namespace: trim_log(table, lake.patience.now(), keep_log_days).entries for table in tables}
    return CompactionReport(
        pl.DataFrame([asdict(folded) for folded in done], schema=_FOLDED),
        {namespace: version for namespace, version in settled.items() if version is not None},
        {namespace: entries for namespace, entries in trimmed.items() if entries},
        stamp.commit_id if done else None,
    )


def specs_named(namespaces: Sequence[str]) -> list[TableSpec]:
    """Return the specs of some namespaces, of all if none is named.

    Raises:
        InvalidInputError: there is no such namespace; names the nearest.
    """
    known = {spec.namespace: spec for spec in all_specs()}
    for name in namespaces:
        if name not in known:
            raise InvalidInputError(f"unknown namespace {name!r}.{did_you_mean(str(name), known)}")
    return [known[name] for name in dict.fromkeys(namespaces)] or list(known.values())
