"""Tokens: short texts that name a commit of unknown outcome, or a state of the whole lake."""

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vxdata.errors import InvalidInputError

_COMMIT, _SNAPSHOT = "vxc1.", "vxs1."


@dataclass(frozen=True)
class UnknownCommit:
    """A commit whose outcome is unknown: the version that was tried and the commit's id."""

    namespace: str
    version: int
    commit_id: str

    def to_text(self) -> str:
        """Return the token."""
        return _pack(_COMMIT, [self.namespace, self.version, self.commit_id])

    @classmethod
    def from_text(cls, text: str) -> "UnknownCommit":
        """Read a token.

        Raises:
            InvalidInputError: it is none.
        """
        namespace, version, commit_id = _unpack(_COMMIT, text, 3)
        return cls(str(namespace), int(version), str(commit_id))


@dataclass(frozen=True)
class LakeState:
    """One version of each table of one lake; a table that is not named does not exist in it.

    Attributes:
        lake_id: the lake.
        versions: namespaces and versions.
        instant: the instant as of which the state is seen; None for the state itself.
        unregistered: the tables that were there, but whose type nobody knew where the state was taken.
    """

    lake_id: str
    versions: tuple[tuple[str, int], ...]
    instant: datetime | None = None
    unregistered: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return the token; a table that is there without a known version has null in its place."""
        versions = {**dict(self.versions), **dict.fromkeys(self.unregistered)}
        return _pack(_SNAPSHOT, [self.lake_id, versions, self.instant and self.instant.isoformat()])

    @classmethod
    def from_text(cls, text: str) -> "LakeState":
        """Read a token.

        Raises:
            InvalidInputError: it is none.
        """
        lake_id, versions, instant = _unpack(_SNAPSHOT, text, 3)
        at = None if instant is None else datetime.fromisoformat(instant)
        known = tuple((str(name), int(version)) for name, version in versions.items() if version is not None)
        return cls(str(lake_id), known, at, tuple(str(name) for name, version in versions.items() if version is None))


def _pack(prefix: str, content: list[Any]) -> str:
    data = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)
    return prefix + base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpack(prefix: str, text: str, length: int) -> list[Any]:
    try:
        body = text.removeprefix(prefix)
        content = json.loads(zlib.decompress(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))
        if text.startswith(prefix) and isinstance(content, list) and len(content) == length:
            return content
    except (ValueError, zlib.error, binascii.Error, AttributeError, TypeError):
        pass
    raise InvalidInputError(f"{text!r} is no token of this kind; one starts with {prefix!r}.")
