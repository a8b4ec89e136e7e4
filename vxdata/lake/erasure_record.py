"""The record of an erasure: when, why, who, counts, and a salted hash of the identifier; no personal data.

The hash answers "was this one erased?" for whoever already knows the identifier, and tells a second run that it goes on
with the work of a first one.
"""

import hashlib
import json
import secrets
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from vxdata.errors import StorageError
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.intent import Stamp
from vxdata.lake.lake import Lake
from vxdata.lake.store import Store

FOLDER = f"{OWN_FOLDER}/erasures"
_ROUNDS = 20_000


@dataclass(frozen=True)
class Record:
    """One erasure.

    Attributes:
        record_id: its id.
        begun_at: when, ISO 8601, UTC.
        author: who.
        reason: why, or None.
        salt, digest: PBKDF2-SHA256 of the identifier with the salt, in hexadecimal.
        is_done: whether it came to its end.
        is_settled: whether writers that were under way have been waited for, in this run.
        counts: how many resources, versions and rows.
        left: what could not be reached.
    """

    record_id: str
    begun_at: str
    author: str
    reason: str | None
    salt: str
    digest: str
    is_done: bool = False
    is_settled: bool = False
    counts: Mapping[str, int] | None = None
    left: tuple[str, ...] = ()

    def is_of(self, identifier: str) -> bool:
        """Whether it is the record of a resource."""
        return secrets.compare_digest(self.digest, _digest(identifier, self.salt))


def begin_record(store: Store, identifier: str, stamp: Stamp, lake: Lake) -> Record:
    """Put the record of an erasure that begins."""
    salt = secrets.token_hex(16)
    begun_at = lake.patience.now().isoformat()
    record = Record(uuid.uuid4().hex, begun_at, stamp.author, stamp.reason, salt, _digest(identifier, salt))
    _put(store, record)
    return record


def finish_record(store: Store, record: Record, counts: Mapping[str, int], left: Iterable[str]) -> None:
    """Note that an erasure came to its end; counts of a run that went on with another's work do not replace its own."""
    _put(store, replace(record, is_done=True, counts=counts, left=tuple(left)))


def find_record(store: Store, identifier: str) -> Record | None:
    """Return the record of a resource's erasure, one that is not done first, else the newest; None if there is none."""
    found = [record for record in read_records(store) if record.is_of(identifier)]
    return max(found, key=lambda record: (not record.is_done, record.begun_at), default=None)


def begun_and_not_done(store: Store) -> list[datetime]:
    """Return when each erasure began that is not done: it runs, or was killed and has to be run again."""
    return [datetime.fromisoformat(record.begun_at) for record in read_records(store) if not record.is_done]


def read_records(store: Store) -> list[Record]:
    """Return all records, oldest first.

    Raises:
        StorageError: one is damaged.
    """
    keys = sorted(key for key in store.list_keys(FOLDER) if key.endswith(".json"))
    return sorted((_read(store, key) for key in keys), key=lambda record: record.begun_at)


def _read(store: Store, key: str) -> Record:
    try:
        content: dict[str, Any] = json.loads(store.get(key) or b"")
        return Record(**{**content, "left": tuple(content["left"])})
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(
            f"the record of an erasure, {key}, is damaged ({error}); restore it from a backup.",
            uri=store.uri, operation="read the erasures of", retryable=False,
        ) from error  # fmt: skip


def _put(store: Store, record: Record) -> None:
    content = asdict(replace(record, is_settled=False))
    store.put(f"{FOLDER}/{record.record_id}.json", json.dumps(content, indent=2).encode())


def _digest(identifier: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", identifier.encode(), bytes.fromhex(salt), _ROUNDS).hex()
