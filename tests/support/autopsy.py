"""All that a lake holds, as text: printed where a machine failed, because what it did may not come about again."""

from __future__ import annotations

import polars as pl

from tests.support.stepping import open_client
from tests.support.wishes import NAMESPACES
from vxdata.catalog.table import all_specs
from vxdata.errors import VxDataError
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.store import Store
from vxdata.sdk import Client

_OF_ROWS = ("identifier", "valid_from", "valid_to", "closes", "is_deleted", "commit_id", "closed_by")


def autopsy(uri: str, warm: dict[str, Client]) -> str:
    """Return the logs, the live files with their statistics, rows and closings, as new and as old clients see them."""
    fresh = open_client(uri)
    parts = [f"lake {uri}", *_logs(fresh._session.lake.store)]
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=250, fmt_str_lengths=120):
        for spec in all_specs():
            if spec.namespace in NAMESPACES.values():
                for name, client in {"a new client": fresh, **warm}.items():
                    try:
                        parts += [f"== {spec.namespace} to {name}", *_state(client._session.lake.snapshot(spec))]
                    except VxDataError as error:
                        parts.append(repr(error))
    return "\n".join(parts)


def _logs(store: Store) -> list[str]:
    """Return all keys of the logs, and the text of each entry."""
    keys = sorted(key for key in store.list_keys() if "/_delta_log/" in key)
    texts = {key: store.get(key) if key.endswith((".json", "_last_checkpoint")) else None for key in keys}
    return [f"{key}\n{(text or b'').decode(errors='replace')}" for key, text in texts.items()]


def _state(snapshot: Snapshot) -> list[str]:
    rows = snapshot.collect(snapshot.rows_of(snapshot.files.clone(), path_column="file"))
    closings = None if snapshot.closings is None else snapshot.closings.collect()
    return [
        f"version {snapshot.version} of {snapshot.table_id}",
        *(str(row) for row in snapshot.files.to_dicts()),
        str(rows.select(*_OF_ROWS, pl.col("file").str.tail(60))),
        f"closing files {snapshot.closing_files['key'].to_list()}",
        f"closings {closings}",
    ]
