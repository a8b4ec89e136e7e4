"""Schema evolution: which columns a table lacks, and whether its types still fit.

Source: design of record, section 5 (schemas evolve by adding nullable columns).
"""

from collections.abc import Mapping

import polars as pl

from vxdata.errors import InvalidInputError


def missing_columns(
    namespace: str, wanted: Mapping[str, pl.DataType], physical: Mapping[str, pl.DataType]
) -> dict[str, pl.DataType]:
    """Return the columns that the table has to gain; columns of others are left alone.

    Args:
        namespace: the table, for the message.
        wanted: the columns that this SDK knows.
        physical: the columns that the table has.

    Raises:
        InvalidInputError: a column exists with another type.
    """
    for name, dtype in wanted.items():
        if name in physical and physical[name] != dtype:
            raise InvalidInputError(
                f"{namespace}.{name} is {physical[name]} in the lake, but this SDK says {dtype}: one name cannot have "
                "two types. Give the field another name."
            )
    return {name: dtype for name, dtype in wanted.items() if name not in physical}
