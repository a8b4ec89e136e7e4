"""A payload type that only some tests know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vxdata.schemas import Payload
from vxdata.schemas.registry import registry


@contextmanager
def registered(type_name: str, payload: type[Payload]) -> Iterator[None]:
    """Register a type, which may have been forgotten since its class was made, while the block runs."""
    known = registry()._by_type
    registry()._by_type = {**known, type_name: payload}
    try:
        yield
    finally:
        registry()._by_type = known
