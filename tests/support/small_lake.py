"""A small lake with what is hard to show: a past, nulls, blanks, quotes, formulas and control characters."""

from __future__ import annotations

from collections.abc import Callable

from vxdata.schemas import Resource
from vxdata.sdk import Client

T2, ADC, ODD = "volume/DA1/s/t2", "volume/DA1/s/adc", "volume/DA1/s/a b=c#d"
DELETED = "volume/DA2/s/gone"


def fill(uri: str) -> Client:
    """Make the lake; the author of all of it is 'ann'."""
    client = Client(uri, author="ann")
    resource: Callable[..., Resource] = Resource
    client.resources.create(
        [
            resource(identifier="datasource/dasa", payload={"name": "DASA"}),
            *(resource(identifier=f"patient/{p}", parent_identifier="datasource/dasa") for p in ("DA1", "DA2")),
            *(
                resource(identifier=f"imagingstudy/{p}/s", parent_identifier=f"patient/{p}")
                for p in ("DA1", "DA2")
            ),
            volume(T2, {"volume_type": "T2", "slice_thickness": 3.0, "modality": "MR", "b_value": 0.5}),
            volume(ADC, {"volume_type": "ADC", "series_description": "", "derived_from": [T2, 'say "hi", twice']}),
            volume(ODD, {"volume_type": "T2", "series_description": '=SUM(A1)\n\x1b[31m"é', "derived_from": []}),
            volume(DELETED, {"volume_type": "SEG", "slice_thickness": 1.25}),
        ],
        reason="first load",
    )  # fmt: skip
    client.volumes.update(T2, {"slice_thickness": 3.6, "modality": None}, reason="header was wrong")
    client.volumes.delete(DELETED, reason="consent withdrawn")
    return client


def volume(identifier: str, payload: dict[str, object]) -> Resource:
    """A volume under the study that its identifier names."""
    study = identifier.removeprefix("volume/").rpartition("/")[0]
    return Resource(identifier=identifier, parent_identifier=f"imagingstudy/{study}", license="CC0", payload=payload)
