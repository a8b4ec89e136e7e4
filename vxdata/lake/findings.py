"""What `verify` can find, how bad each thing is, and what to do about it: one table for all of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from vxdata.lake.log import ENTRY_REMEDY

Severity = Literal["error", "warning", "info"]
_ORDER: tuple[Severity, ...] = ("error", "warning", "info")
MOST_SUBJECTS = 100
"""So many subjects of one kind are named for each table; of the rest the number."""

COLUMNS = ("severity", "kind", "namespace", "subject", "detail", "remedy")

_FROM_BACKUP = "restore it from a backup (or an older object version)"
_BY_HAND = "find out who wrote it (client.resources.history), then correct the resource with an update"
KINDS: dict[str, tuple[Severity, str]] = {
    "lake-format-damaged": ("error", f"{_FROM_BACKUP}; every lake's lake.json has its own id"),
    "log-unreadable": ("error", "restore the table's _delta_log from a backup; the data files are not affected"),
    "log-entry-damaged": ("error", ENTRY_REMEDY),
    "log-entry-missing": ("error", _FROM_BACKUP),
    "log-hint-wrong": ("warning", "nothing: the next checkpoint writes it anew"),
    "checkpoint-damaged": (
        "error",
        "remove its files if all entries since the one before are there; else restore it from a backup; where there is "
        "none, and it opens, remove its checksum (_vxdata/checkpoints) to accept what it says",
    ),
    "log-state-differs": ("error", "restore the newest checkpoint from a backup, or remove it if it is not needed"),
    "file-missing": ("error", f"{_FROM_BACKUP}; its rows are lost otherwise"),
    "file-damaged": ("error", f"{_FROM_BACKUP}; its rows cannot be trusted"),
    "file-unreadable": ("error", f"{_FROM_BACKUP}; its rows cannot be read"),
    "file-columns": ("error", "have the writer that added it write the table's own columns and types"),
    "file-rows": ("error", "restore the table's log from a backup: counts and skipping of files rest on it"),
    "file-statistics": ("error", "restore the table's log from a backup: queries skip files by it"),
    "file-partition": ("error", "restore the table's log from a backup; else write these resources anew"),
    "file-unsorted": ("warning", "run 'vxdata compact': look-ups in it read more than they need to"),
    "file-without-checksum": ("info", "nothing: another writer made it; damage in it cannot be noticed"),
    "file-without-statistics": ("warning", "run 'vxdata compact': queries cannot skip it"),
    "file-orphaned": ("info", "run 'vxdata vacuum --delete'"),
    "row-incomplete": ("error", _BY_HAND),
    "row-double": ("error", "report it: no writer of VxData does that; restore the table from a backup"),
    "two-current-versions": ("error", "report it: no writer of VxData does that; delete and create the resource"),
    "interval-empty": ("error", _BY_HAND),
    "interval-overlap": ("error", "report it: no writer of VxData does that; restore the table from a backup"),
    "closed-twice": ("error", "report it: no writer of VxData does that; restore the table from a backup"),
    "closing-without-version": ("warning", "nothing if the version was erased; else look for a lost file"),
    "created-at-wrong": ("error", _BY_HAND),
    "lineage-wrong": ("error", "delete the resource and create it again below its parent"),
    "orphaned-resource": ("error", "delete it, or create its parent again"),
    "table-unregistered": (
        "error",
        "check again where its payload type is registered: import or install what declares it; move the folder of a "
        "table that nobody needs any more out of the lake",
    ),
    "kept-snapshot-damaged": ("error", f"{_FROM_BACKUP}, or remove it: vacuum refuses to work until then"),
    "kept-snapshot-incomplete": ("error", "restore the files from a backup, or drop it: 'vxdata snapshots drop'"),
    "archive-gap": ("error", "restore _vxdata/commits from a backup: who wrote what and why is not known for these"),
    "archive-damaged": ("error", f"{_FROM_BACKUP}; while the log has the entries, remove it: it is written anew"),
    "erasure-record-damaged": ("error", f"{_FROM_BACKUP}; vacuum and erasures refuse to work until then"),
    "erasure-not-done": ("warning", "nothing if it runs; else run it again: vacuum spares files for it"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        severity: "error" needs a person; "warning" is slower or suspicious; "info" is good to know.
        kind: what it is; a key of `KINDS`.
        namespace: the table; None for the lake as a whole.
        subject: the file (its key in the lake) or the identifier.
        detail: what was expected and what was found.
        remedy: what to do.
    """

    severity: Severity
    kind: str
    namespace: str | None
    subject: str
    detail: str
    remedy: str


def found(kind: str, namespace: str | None, subject: str, detail: str, *, is_sure: bool = True) -> Finding:
    """Return a finding of a kind.

    Args:
        kind: a key of `KINDS`.
        namespace: the table; None for the lake as a whole.
        subject: the file or the identifier.
        detail: what was expected and what was found.
        is_sure: whether all that it rests on could be read; else an error is a warning.
    """
    severity, remedy = KINDS[kind]
    if not is_sure:
        severity = "warning" if severity == "error" else severity
        detail += "; files of the table could not be read, so this may come from that"
    return Finding(severity, kind, namespace, subject, detail, remedy)


def found_each(
    kind: str, namespace: str, subjects: Iterable[str], detail: str, *, is_sure: bool = True
) -> list[Finding]:
    """Return a finding of one kind for each subject; of many, the first ones and the number of the rest."""
    names = list(dict.fromkeys(subjects))
    findings = [found(kind, namespace, name, detail, is_sure=is_sure) for name in names[:MOST_SUBJECTS]]
    if len(names) > MOST_SUBJECTS:
        rest = f"and {len(names) - MOST_SUBJECTS:,} more"
        findings.append(found(kind, namespace, rest, detail, is_sure=is_sure))
    return findings


def to_frame(findings: Iterable[Finding]) -> pl.DataFrame:
    """Return findings as a frame, the worst first."""
    rows = [tuple(getattr(finding, name) for name in COLUMNS) for finding in findings]
    rows.sort(key=lambda row: _ORDER.index(row[0]))
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String()), orient="row")
