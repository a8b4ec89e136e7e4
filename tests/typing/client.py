"""What type checkers see of the SDK. Checked by mypy and pyright (tests/test_typing.py); never run.

A line that must be an error carries a `type: ignore`: strict checkers complain if it is not needed.
"""

from datetime import datetime
from typing import Any, assert_type

import polars as pl

from vxdata.lake.delete import DeleteReport
from vxdata.lake.upsert import UpsertReport
from vxdata.schemas import Payload, Resource, ResourceResponse
from vxdata.schemas.payload import PatientPayload, VolumePayload
from vxdata.schemas.response import DatasourceResponse, ImagingStudyResponse, PatientResponse, VolumeResponse
from vxdata.sdk import ALL, ANY, Client, F, Predicate, has_ancestor
from vxdata.sdk.namespace import Namespace
from vxdata.sdk.query import Query, Selection


class Biopsy(Payload, type="biopsy", namespace="biopsies", parents=("patient",)):
    """A team's own type."""

    cores: int | None = None


client = Client()
one_resource = Resource(identifier="volume/1", parent_identifier="imagingstudy/1", payload={"volume_type": "T2"})
modelled = Resource(identifier="volume/1", payload=VolumePayload(volume_type="T2"))

# -- verbs

assert_type(client.volumes, Namespace[VolumeResponse])
assert_type(client.volumes.retrieve("volume/1"), VolumeResponse)
assert_type(client.volumes.retrieve(["volume/1"]), list[VolumeResponse])
assert_type(client.imaging_studies.retrieve(("imagingstudy/1",)), list[ImagingStudyResponse])
assert_type(client.volumes.create(modelled), VolumeResponse)
assert_type(client.volumes.create([modelled]), list[VolumeResponse])
assert_type(client.volumes.update("volume/1", {"volume_type": None}, license=None), VolumeResponse)
assert_type(client.patients.update("patient/1", PatientPayload(sex="F")), PatientResponse)
assert_type(client.datasources.history("datasource/1"), list[DatasourceResponse])
assert_type(client.volumes.delete("volume/1", cascade=True), DeleteReport)
assert_type(client.volumes.upsert(pl.DataFrame()), UpsertReport)
assert_type(client.volumes.upsert(pl.LazyFrame(), missing="delete"), UpsertReport)
assert_type(client.resources.retrieve("volume/1"), ResourceResponse[Any])
assert_type(client.as_of("2024-01-01").volumes.retrieve("volume/1"), VolumeResponse)
assert_type(client.snapshot(), Client)

# -- responses

volume = client.volumes.retrieve("volume/1")
assert_type(volume.payload, VolumePayload)
assert_type(volume.payload.slice_thickness, float | None)
assert_type(volume.payload.acquisition_datetime, datetime | None)
assert_type(volume.payload.derived_from, list[str] | None)
assert_type(volume.ancestors, tuple[str, ...])
assert_type(volume.valid_to, datetime | None)

# -- a team's own type

biopsies = client.namespace(Biopsy)
assert_type(biopsies, Namespace[ResourceResponse[Biopsy]])
assert_type(biopsies.retrieve("biopsy/1").payload.cores, int | None)
assert_type(biopsies.query().collect_as_pydantic(), list[ResourceResponse[Biopsy]])

# -- queries

query = client.volumes.query()
assert_type(query, Query[VolumeResponse])
assert_type(query.filter(F.volume_type == "T2").sort("identifier").limit(1), Query[VolumeResponse])
assert_type(query.as_of("2024-01-01").versions(), Query[VolumeResponse])
assert_type(query.collect(), pl.DataFrame)
assert_type(query.lazy(), pl.LazyFrame)
assert_type(query.count(), int)
assert_type(query.explain(), str)
assert_type(query.to_sql(), str)
assert_type(query.funnel(), pl.DataFrame)
assert_type(query.collect_as_pydantic(), list[VolumeResponse])
assert_type(query.filter(F.b_value > 0).collect_as_pydantic(), list[VolumeResponse])
assert_type(query.select("identifier", "b_value"), Selection)
assert_type(query.select("identifier").filter(F.b_value > 0).limit(1), Selection)
assert_type(query.select("identifier").collect(), pl.DataFrame)

# -- predicates

sub = query.select("slice_thickness")
query.filter(F.volume_type == "T2", F.volume_type != None, F.slice_thickness > 2.5)  # noqa: E711
query.filter((F.volume_type == "T2") | (F.volume_type == "ADC") & ~F.image_plane.is_null())
query.filter(F.slice_thickness > ANY(sub), F.slice_thickness <= ALL(sub), F.slice_thickness.is_in(sub))
query.filter(F["type"].is_in({"a", "b"}), F.derived_from.contains_any(sub), has_ancestor("datasource/a"))
query.filter(F.volume_type.contains("T"), F.volume_type.startswith("T"), F.volume_type.endswith("2"))
query.filter(F.slice_thickness.between(2, 3), F.valid_from.after("2024-01-01"), F.valid_from.before(datetime.max))
query.filter(F.volume_type.eq_missing(None), F.volume_type.ne_missing("T2"))
either = (F.volume_type == "T2") | (F.volume_type == "ADC")
either = either & (F.b_value > 0)
either = ~either
assert_type(either, Predicate)

# -- what must be an error

query.select("identifier").collect_as_pydantic()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
query.filter("volume_type == 'T2'")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
query.filter(F.volume_type)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
query.limit("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
client.volumes.retrieve(1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
client.volumes.upsert(pl.DataFrame(), missing="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert client.volumes.retrieve("volume/1").payload.birthyear  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
client.namespace(int)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
