"""The questions of `vxdata demo`. Each function is shown as it stands here, and run: lines fit a narrow terminal."""

from collections.abc import Callable

import polars as pl

from vxdata.sdk import Client, F, has_ancestor

Question = Callable[[Client], pl.DataFrame]
# fmt: off


def prostate_mri(client: Client) -> pl.DataFrame:
    """Which prostate collections hold MRI, how much, and on what terms?"""
    prostate = (
        client.datasources.query()
        .filter(F.tumor_locations.contains("Prostate"))
        .select("identifier")
    )
    return (
        client.volumes.query()
        .filter(
            F.modality == "MR",
            F.datasource_id.is_in(prostate),  # a subquery
        )
        .lazy()  # from here on it is Polars
        .group_by("datasource_id")
        .agg(
            patients=pl.col("patient_id").n_unique(),
            series=pl.len(),
            GB=pl.col("size_mb").sum() / 1000,
            licenses=pl.col("license").unique().sort().str.join(", "),
        )
        .sort("patients", descending=True)
        .collect()
    )


def segmented_axial_t2(client: Client) -> pl.DataFrame:
    """Which axial T2 series of PROSTATEx have expert zone segmentations?"""
    segmented = (
        client.volumes.query()
        .filter(F.analysis_result == "prostatex_seg_zones")
        .select("patient_id")
    )
    return (
        client.volumes.query()
        .filter(
            has_ancestor("datasource/prostatex"),
            F.patient_id.is_in(segmented),
            F.series_description.startswith("t2_tse_tra"),
        )
        .sort("patient_id", "identifier")
        .select("patient_id", "manufacturer_model_name", "path_dicom")
        .collect()
    )


def label_and_look_back(client: Client) -> pl.DataFrame:
    """Label the axial T2 series: is the past still there, and today later?"""
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
    client.volumes.upsert(  # run again, it writes nothing
        axial_t2.with_columns(
            volume_type=pl.lit("T2"),
            image_plane=pl.lit("transversal"),
        ),
        reason="label the axial T2 series",
    )
    token = client.snapshot().token  # a short text that names this state
    lakes = {
        "when it was loaded": client.as_of(prostatex.created_at),
        "now": client,
        f"snapshot {token[:12]}...": Client(client.uri, snapshot=token),
    }
    labelled = F.volume_type == "T2"
    return pl.DataFrame(
        {
            "lake": name,
            "volumes": lake.volumes.query().count(),
            "labelled T2": lake.volumes.query().filter(labelled).count(),
        }
        for name, lake in lakes.items()
    )


QUESTIONS: tuple[Question, ...] = (
    prostate_mri, segmented_axial_t2, label_and_look_back,
)
