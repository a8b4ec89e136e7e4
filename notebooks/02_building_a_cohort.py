"""Building a cohort: `marimo edit notebooks/02_building_a_cohort.py`, or run it as a script.

It reads the lake of `vxdata demo`, or that of VXDATA_URI.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import atexit
    import os
    import shutil
    import tempfile

    import marimo as mo
    import polars as pl

    from vxdata.sdk import Client, F
    from vxdata.sdk.ingest import ingest
    from vxdata_cli.demo import demo_uri


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Building a cohort

    Which axial T2 volumes of PROSTATEx do we have, and what are the highest ISUP grade and PI-RADS score of their
    patients?

    **The assessments are invented.** The images come from the public IDC index, which holds neither pathology nor
    PI-RADS. So this notebook copies PROSTATEx into a lake of its own, in a temporary folder, and makes up assessments.
    """)
    return


@app.cell
def _():
    idc = Client(os.environ.get("VXDATA_URI") or demo_uri())
    return (idc,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The frames

    What a query returns can be written back as it is. Here the axial T2 series get their labels.
    """)
    return


@app.cell
def _(idc):
    is_axial_t2 = pl.col("series_description").str.starts_with("t2_tse_tra")
    frames = {
        name: getattr(idc, name).query().filter(F.datasource_id == "datasource/prostatex").collect()
        for name in ["datasources", "patients", "imaging_studies", "volumes"]
    }
    frames["volumes"] = frames["volumes"].with_columns(
        volume_type=pl.when(is_axial_t2).then(pl.lit("T2")),
        image_plane=pl.when(is_axial_t2).then(pl.lit("transversal")),
    )
    return (frames,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    Now the invented assessments. As in real data, some patients have several, some none, and some values are missing.
    """)
    return


@app.cell
def _(frames):
    def invent(kind, field, values, seed):
        patients = frames["patients"]["identifier"].sort().sample(fraction=1.5, with_replacement=True, seed=seed)
        return pl.DataFrame(
            {
                "identifier": [f"{kind}/invented/{n}" for n in range(len(patients))],
                "parent_identifier": patients,
                field: pl.Series(values, dtype=pl.Int64).sample(len(patients), with_replacement=True, seed=seed),
            }
        )

    invented = {
        "pathology_assessments": invent("pathologyassessment", "isup", [0, 1, 2, 3, 4, 5, None], seed=1),
        "pirads_assessments": invent("piradsassessment", "score", [1, 2, 3, 4, 5, None], seed=2),
    }
    return (invented,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## A lake of our own

    `ingest` takes one frame for each type, and loads parents first. Run again, it would write nothing.
    """)
    return


@app.cell
def _(frames, invented):
    folder = tempfile.mkdtemp(prefix="vxdata-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # gone when the notebook is closed
    client = Client(f"{folder}/lake")
    loaded = ingest(client, {**frames, **invented}, reason="a copy of PROSTATEx with invented assessments")
    pl.DataFrame({"type": name, "created": report.created} for name, report in loaded.items())
    return client, loaded


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Volumes with the highest ISUP and PI-RADS of their patient
    """)
    return


@app.cell
def _(client):
    volumes = (
        client.volumes.query()
        .filter(F.volume_type == "T2", F.image_plane == "transversal", F.datasource_id == "datasource/prostatex")
        .select("identifier", "patient_id")
        .collect()
    )
    pathology = (
        client.pathology_assessments.query()
        .filter(F.datasource_id == "datasource/prostatex")
        .select("patient_id", "isup")
        .collect()
        .group_by("patient_id")
        .agg(pl.col("isup").max().alias("max_isup"))
    )
    pirads = (
        client.pirads_assessments.query()
        .filter(F.datasource_id == "datasource/prostatex")
        .select("patient_id", "score")
        .collect()
        .group_by("patient_id")
        .agg(pl.col("score").max().alias("max_pirads"))
    )
    cohort = volumes.join(pathology, on="patient_id", how="left").join(pirads, on="patient_id", how="left")
    cohort
    return (cohort,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The flow chart

    One query: axial T2 volumes of patients with clinically significant cancer (ISUP 2 or more) and PI-RADS 3 or more.
    `funnel()` counts what each filter leaves; `removed_null` counts what fell out only because a value was missing.
    """)
    return


@app.cell
def _(client):
    significant = client.pathology_assessments.query().filter(F.isup >= 2).select("patient_id")
    suspicious = client.pirads_assessments.query().filter(F.score >= 3).select("patient_id")
    query = client.volumes.query().filter(
        F.volume_type == "T2",
        F.image_plane == "transversal",
        F.patient_id.is_in(significant),
        F.patient_id.is_in(suspicious),
    )
    print(query.funnel_chart())
    funnel = query.funnel()
    funnel
    return funnel, query


if __name__ == "__main__":
    app.run()
