"""Tending the log after a commit: a checkpoint every 15 commits, and the archive of commit metadata.

A cold open costs two GETs for each commit since the last checkpoint. Both are made apart from commits: a failure is
logged as a warning and is never a failed write.

Source: design of record, section 5 (the log).
"""

import logging

from vxdata.errors import StorageError
from vxdata.lake.archive import archive_commits
from vxdata.lake.checkpoints import read_hint
from vxdata.lake.foldable import BY_SCHEDULE, partitions_to_fold
from vxdata.lake.seals import refuse_damaged_state, seal_checkpoint, unseal
from vxdata.lake.table import Table

CHECKPOINT_COMMITS = 15
CHECKPOINT_SHARE = 0.05

logger = logging.getLogger(__name__)


def tend_log(table: Table, version: int) -> None:
    """Write a checkpoint and archive the commits' metadata, if the log's tail is long enough.

    Args:
        table: the table that was committed to.
        version: the version that was committed.
    """
    try:
        tail = version - last_checkpoint(table, version)
        if tail >= CHECKPOINT_COMMITS and tail >= CHECKPOINT_SHARE * table.snapshot().files.height:
            table.checkpoint_version = _make_checkpoint(table)
            _ask_for_compaction(table)
    except StorageError as error:
        logger.warning("no checkpoint was written, opening the table gets slower: %s", error)


def _ask_for_compaction(table: Table) -> None:
    """Say, once for each table that is held open, that its tail has grown long enough to be folded."""
    folds = [] if table.is_told_to_want_compaction else partitions_to_fold(table.snapshot(), BY_SCHEDULE)
    if folds:
        table.is_told_to_want_compaction = True
        logger.warning(
            "%s wants compaction in %d datasources: run 'vxdata maintain', or client.compact(%r)",
            table.spec.namespace, len(folds), table.spec.namespace,
        )  # fmt: skip


def settle_log(table: Table) -> int | None:
    """Write a checkpoint of the newest version, and archive the commits' metadata, unless it is done already.

    Args:
        table: a table that exists.

    Returns:
        The version of the new checkpoint; None if there was nothing to do.

    Raises:
        StorageError: it could not be written; no commit depends on it.
    """
    version = table.snapshot().version
    if version == last_checkpoint(table, version):
        return None
    table.checkpoint_version = _make_checkpoint(table)
    return table.checkpoint_version


def _make_checkpoint(table: Table) -> int:
    """Write and seal a checkpoint of the newest version, if its log is as it was written, and archive the commits."""
    store, namespace, newest = table.store, table.spec.namespace, table.listed_snapshot().version
    entries = refuse_damaged_state(store, namespace, newest, "write a checkpoint of")
    unseal(store, namespace, newest)
    table.write_checkpoint(newest)
    seal_checkpoint(store, namespace, newest)
    archive_commits(table, newest, entries)
    return newest


def last_checkpoint(table: Table, version: int) -> int:
    """Return the version of the newest checkpoint, looked up again when the tail seems long; -1 if there is none."""
    known = table.checkpoint_version
    if known is None or version - known >= CHECKPOINT_COMMITS:
        table.checkpoint_version = read_hint(table.store, table.spec.namespace)
    return -1 if table.checkpoint_version is None else table.checkpoint_version
