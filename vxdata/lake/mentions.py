"""Whether a text tells of erased resources: it is one of their identifiers, or names one between other words. Pure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from vxdata.lake.statistics import TEXT_BOUND
from vxdata.lake.traces import Traces

ERASED = "[erased]"
_PART_OF_NAME = r"[\w/.\-=#%]"


@dataclass(frozen=True)
class Mentions:
    """What must not be told any more.

    Attributes:
        identifiers: of the erased resources.
        values: for each column of each namespace the texts that only their rows had.
    """

    identifiers: frozenset[str]
    values: Mapping[str, Mapping[str, pl.Series]]

    @classmethod
    def of(cls, traces: Traces) -> "Mentions":
        """Return what the rows that were found must not leave behind."""
        return cls(traces.identifiers, {table.spec.namespace: table.values for table in traces.tables})

    def only(self, identifiers: Collection[str]) -> "Mentions":
        """Return the same of some identifiers alone."""
        return replace(self, identifiers=self.identifiers.intersection(identifiers))

    @cached_property
    def _named(self) -> re.Pattern[str]:
        """An identifier that is not the beginning or the end of a longer one."""
        words = "|".join(map(re.escape, sorted(self.identifiers, key=len, reverse=True)))
        return re.compile(rf"(?<!{_PART_OF_NAME})(?:{words})(?!{_PART_OF_NAME}*[\w/=#%])")

    def are_in(self, text: str) -> bool:
        """Whether a text names an erased resource."""
        return text in self.identifiers or self._named.search(text) is not None

    def are_bound(self, namespace: str, column: str, bound: Any) -> bool:
        """Whether a bound of a column's statistics is, or begins, a text that only erased rows had."""
        own = self.values.get(namespace, {}).get(column)
        return own is not None and isinstance(bound, str) and bool((own == bound[:TEXT_BOUND]).any())

    def without(self, content: Any) -> Any:
        """Return JSON content with erased identifiers replaced wherever a text names one."""
        match content:
            case str():
                return self._named.sub(ERASED, content)
            case dict():
                return {key: self.without(value) for key, value in content.items()}
            case list():
                return [self.without(value) for value in content]
        return content
