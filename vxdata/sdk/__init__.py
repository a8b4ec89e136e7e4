"""What users import: the client, `F`, and the lineage filter."""

from vxdata.expr.proxy import F, has_ancestor
from vxdata.sdk.client import Client

__all__ = ["Client", "F", "has_ancestor"]
