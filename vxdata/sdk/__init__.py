"""What users import: the client, `F`, and the lineage filter; each is loaded when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vxdata.expr.proxy import ALL, ANY, F, has_ancestor
    from vxdata.expr.tree import Predicate
    from vxdata.sdk.client import Client

__all__ = ["ALL", "ANY", "Client", "F", "Predicate", "has_ancestor"]

_HOMES = {"Client": "vxdata.sdk.client", "Predicate": "vxdata.expr.tree"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES.get(name, "vxdata.expr.proxy"))
    globals()[name] = getattr(home, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
