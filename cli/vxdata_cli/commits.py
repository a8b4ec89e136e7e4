"""`vxdata log`, `vxdata restore` and `vxdata revert`: what was done to a lake, and undoing it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vxdata_cli.complete import complete_identifiers, complete_types
from vxdata_cli.options import Debug, Json, NoProgress, Profile, Quiet, Reason, Uri
from vxdata_cli.out import out

if TYPE_CHECKING:
    import polars as pl

    from vxdata.lake.restore import RestoreReport
    from vxdata.lake.revert import RevertReport
    from vxdata.sdk.commits import Commits

LOG_EXAMPLES = """Examples:

  $ vxdata log
  $ vxdata log --limit 5 --namespace volumes
  $ vxdata log --uri s3://bucket/lake --limit 1000 --json"""

RESTORE_EXAMPLES = """Examples:

  $ vxdata restore patient/BB00017 --reason "deleted by mistake"
  $ vxdata restore volume/BB00017/001/t2 --uri s3://bucket/lake --yes --json"""

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
_BEHIND = 10

REVERT_EXAMPLES = """Examples:

  $ vxdata revert 6f1e0c3a9d5b4f0e8a7c2d1b3e4f5a6b
  $ vxdata revert 6f1e0c3a9d5b4f0e8a7c2d1b3e4f5a6b --reason "wrong file" --yes"""


def log(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show the newest N operations.")] = 20,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            metavar="NAME",
            autocompletion=complete_types,
            help="Only those of one type, such as volumes.",
        ),
    ] = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the operations on a lake, newest first: when, who, what, how much and why.

    An operation over several types has one id, and a line for each type.
    """
    from vxdata.sdk import Client
    from vxdata_cli.ask import namespace_name
    from vxdata_cli.tables import commit_lines

    only = None if namespace is None else namespace_name(namespace)
    commits, is_cut = _newest_operations(Client(uri).commits, only, limit)
    older = "\n\n… and older ones (--limit N)" if is_cut else ""
    out.text({"commits": _records(commits), "more": is_cut}, commit_lines(commits) + older)


def _newest_operations(commits: "Commits", only: str | None, most: int) -> "tuple[pl.DataFrame, bool]":
    """Return the commits of the newest operations, all of each, and whether there are older ones.

    An operation has any number of commits, and others may lie between them: so many are read that behind the last one
    that belongs here a few do not.
    """
    from vxdata_cli.tables import operation_of

    rows = most + _BEHIND
    while True:
        found = commits.list(only, limit=rows)
        keys = [operation_of(row) for row in found.iter_rows(named=True)]
        shown = list(dict.fromkeys(keys))[:most]
        belongs = [key in shown for key in keys]
        last = max((place for place, is_one in enumerate(belongs) if is_one), default=0)
        if found.height < rows or found.height - last > _BEHIND:
            return found.filter(belongs), not all(belongs)
        rows *= 2


def restore(
    identifier: Annotated[
        str, typer.Argument(metavar="IDENTIFIER", autocompletion=complete_identifiers, help="The deleted resource.")
    ],
    yes: Yes = False,
    uri: Uri = None,
    profile: Profile = None,
    reason: Reason = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bring back a deleted resource, and the descendants that the same delete closed.

    They come back with their last content, as new versions. What was created
    again meanwhile stays as it is. What would be done is shown first.
    """
    from vxdata.sdk import Client

    client = Client(uri)
    if not yes:
        with out.steps() as begin:
            begin("look at what was deleted")
            planned = client.resources.restore(identifier, dry_run=True)
        out.ask(*_shown(f"To restore {identifier} in {client.uri}", planned))
        out.confirm("Restore it?")
    with out.steps() as begin:
        begin(f"restore {identifier}")
        report = client.resources.restore(identifier, reason=reason)
    out.result(_restored(client.uri, report), *_shown(f"{identifier} in {client.uri}", report))


def _shown(title: str, report: "RestoreReport") -> list[Any]:
    from vxdata_cli.tables import count_table, frame_table

    left_out = [frame_table(report.left_out)] if report.left_out.height else []
    return [count_table(title, {"restored": report.restored}), *left_out]


def revert(
    commit_id: Annotated[str, typer.Argument(metavar="COMMIT_ID", help="The operation, as 'vxdata log' shows it.")],
    yes: Yes = False,
    uri: Uri = None,
    profile: Profile = None,
    reason: Reason = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Undo one operation in all its types, as new versions; the history stays.

    What it made is deleted, what it updated gets its values of before, what it
    deleted comes back. Refused if any of it was changed since. What would be
    done is shown first.
    """
    from vxdata.sdk import Client

    client = Client(uri)
    if not yes:
        with out.steps() as begin:
            begin("look at what it did")
            planned = client.commits.revert(commit_id, dry_run=True)
        if planned.refused.is_empty():
            out.ask(_counts(f"To revert {commit_id} in {client.uri}", planned))
            out.confirm("Revert it?")
    with out.steps() as begin:
        begin(f"revert {commit_id}")
        report = client.commits.revert(commit_id, reason=reason)
    out.result(_reverted(client.uri, commit_id, report), _counts(f"Reverted {commit_id} in {client.uri}", report))


def _counts(title: str, report: "RevertReport") -> Any:
    from vxdata_cli.tables import count_table

    return count_table(title, {"created": report.created, "updated": report.updated, "deleted": report.deleted})


def _records(commits: "pl.DataFrame") -> list[dict[str, Any]]:
    rows = commits.rows(named=True)
    return [row | {"committed_at": row["committed_at"] and row["committed_at"].isoformat()} for row in rows]


def _restored(lake: str, report: "RestoreReport") -> dict[str, Any]:
    left_out = report.left_out.rows(named=True)
    return {"lake": lake, "restored": report.restored, "left_out": left_out, "commit_id": report.commit_id}


def _reverted(lake: str, commit_id: str, report: "RevertReport") -> dict[str, Any]:
    counts = {"created": report.created, "updated": report.updated, "deleted": report.deleted}
    return {"lake": lake, "reverted": commit_id, **counts, "commit_id": report.commit_id}
