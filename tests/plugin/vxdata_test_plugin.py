"""A team's own payload type, found by the entry-point group `vxdata.payloads`."""

from datetime import date
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, Field

from vxdata.schemas.payload import Payload, UtcDatetime


class Core(BaseModel):
    """One core of a biopsy."""

    location: str | None = Field(default=None, description="Sector that the core was taken from.")
    length_mm: float | None = Field(default=None, description="Length of the tissue, mm.")
    gleason: list[int] | None = Field(default=None, description="Primary and secondary Gleason pattern, 1 to 5.")


class Needle(BaseModel):
    """The needle of a biopsy."""

    maker: str | None = Field(default=None, description="Maker of the needle.")
    gauge: int | None = Field(default=None, description="Diameter, gauge.")


class Biopsy(Payload, type="biopsy", namespace="biopsies", parents=("patient",)):
    """One biopsy of the prostate."""

    technique: Literal["transrectal", "transperineal"] | None = Field(default=None, description="Way of the needle.")
    taken_on: date | None = Field(default=None, description="Day of the biopsy.")
    reported_at: UtcDatetime | None = Field(default=None, description="When the report was signed, UTC.")
    is_targeted: bool | None = Field(default=None, description="Whether MRI guided the needle.")
    prostate_volume: Decimal | None = Field(
        default=None, max_digits=6, decimal_places=2, description="Volume of the prostate, mL."
    )
    needle: Needle | None = Field(default=None, description="The needle.")
    cores: list[Core] | None = Field(default=None, description="The cores, in the order in which they were taken.")
    remarks: list[str] | None = Field(default=None, description="Remarks, as the report words them.")
    thumbnail: bytes | None = Field(default=None, description="Preview of the scanned report, PNG.")
