"""What users import: the client, `F`, and the lineage filter."""

from vxdata.expr.proxy import ALL, ANY, F, has_ancestor
from vxdata.sdk.client import Client

__all__ = ["ALL", "ANY", "Client", "F", "has_ancestor"]
