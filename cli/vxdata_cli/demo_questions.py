"""The questions of `vxdata demo`. Each function is shown as it stands here, and run."""

from collections.abc import Callable

import polars as pl

from vxdata.sdk import Client, F, has_ancestor

Question = Callable[[Client], pl.DataFrame]


def prostate_mri(client: Client) -> pl.DataFrame:
    """Which prostate collections hold MRI, how much, and under which license?"""
    prostate = (
        client.datasources.query()
        .filter(F.tumor_locations.contains("Prostate"))
        .select("identifier")
        .collect()
    )  # fmt: skip
    return (
        client.volumes.query()
        .filter(F.modality == "MR", F.datasource_id.is_in(prostate["identifier"]))
        .lazy()  # from here on it is Polars
        .group_by("datasource_id")
        .agg(
            patients=pl.col("patient_id").n_unique(),
            series=pl.len(),
            gigabytes=pl.col("size_mb").sum() / 1000,
            licenses=pl.col("license").unique().sort().str.join(", "),
        )
        .sort("patients", descending=True)
        .collect()
    )


def segmented_axial_t2(client: Client) -> pl.DataFrame:
    """Which axial T2 series of PROSTATEx belong to patients with expert zone segmentations?"""
    segmented = (
        client.volumes.query()
        .filter(F.modality == "SEG", F.analysis_result == "prostatex_seg_zones")
        .select("patient_id")
        .collect()
    )
    return (
        client.volumes.query()
        .filter(
            has_ancestor("datasource/prostatex"),
            F.series_description.startswith("t2_tse_tra"),
            F.patient_id.is_in(segmented["patient_id"]),
        )
        .sort("patient_id", "identifier")
        .select("patient_id", "manufacturer_model_name", "path_dicom")
        .collect()
    )


def label_and_look_back(client: Client) -> pl.DataFrame:
    """What did the lake say before I labelled these series, and can I see today's state again next year?"""
    prostatex = client.datasources.retrieve("datasource/prostatex")
    axial_t2 = (
        client.volumes.query()
        .filter(
            has_ancestor(prostatex.identifier),
            F.series_description.startswith("t2_tse_tra"),
        )
        .select("identifier")
        .collect()
    )
    client.volumes.upsert(
        axial_t2.with_columns(volume_type=pl.lit("T2"), image_plane=pl.lit("transversal")),
        reason="label the axial T2 series",
    )
    token = client.snapshot().token  # put it into your paper: it opens this very state
    seen = {
        f"as of {prostatex.created_at:%Y-%m-%d}": client.as_of(prostatex.created_at),
        "now": client,
        f"snapshot {token[:12]}...": Client(client.uri, snapshot=token),
    }
    t2 = F.volume_type == "T2"
    return pl.DataFrame(
        [
            {"lake": name, "volumes": at.volumes.query().count(), "labelled T2": at.volumes.query().filter(t2).count()}
            for name, at in seen.items()
        ]
    )


QUESTIONS: tuple[Question, ...] = (prostate_mri, segmented_axial_t2, label_and_look_back)
