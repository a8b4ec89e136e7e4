"""First steps: `marimo edit notebooks/01_first_steps.py`, or run it as a script.

It reads the lake of `vxdata demo`, or that of VXDATA_URI.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import os

    import marimo as mo
    import polars as pl

    from vxdata.sdk import Client, F, has_ancestor
    from vxdata_cli.demo import demo_uri


@app.cell(hide_code=True)
def _():
    mo.md("""
    # First steps

    This notebook reads the lake that `vxdata demo` makes: the public index of the NCI Imaging Data Commons (IDC).
    Set `VXDATA_URI` to read another lake. It writes nothing.
    """)
    return


@app.cell
def _():
    client = Client(os.environ.get("VXDATA_URI") or demo_uri())
    return (client,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What is in it?

    Each type of resource has a namespace: `client.patients`, `client.volumes`, ...
    A query reads nothing before its last step, here `.count()`.
    """)
    return


@app.cell
def _(client):
    sizes = pl.DataFrame(
        {"type": name, "resources": getattr(client, name).query().count()}
        for name in ["datasources", "patients", "imaging_studies", "volumes"]
    )
    sizes
    return (sizes,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## One resource

    `retrieve` takes an identifier and returns a typed response: its place in the lake, its times, and its content
    as `.payload`.
    """)
    return


@app.cell
def _(client):
    prostatex = client.datasources.retrieve("datasource/prostatex")
    prostatex.payload.name, prostatex.created_at, prostatex.payload.tumor_locations
    return (prostatex,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Many resources

    `F` stands for the fields. Several predicates are joined by AND. `collect()` returns a Polars DataFrame.
    """)
    return


@app.cell
def _(client, prostatex):
    axial_t2 = client.volumes.query().filter(
        has_ancestor(prostatex.identifier), F.series_description.startswith("t2_tse_tra")
    )
    first_ten = (
        axial_t2.sort("identifier").limit(10).select("patient_id", "identifier", "size_mb", "path_dicom").collect()
    )
    first_ten
    return axial_t2, first_ten


@app.cell(hide_code=True)
def _():
    mo.md("""
    How much of the lake did that touch? `explain()` says how many files are read, and which filters go down to them.
    """)
    return


@app.cell
def _(axial_t2):
    explanation = axial_t2.explain()
    print(explanation.partition("\n\n")[0])
    return (explanation,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## On to Polars

    `.lazy()` hands the query over to Polars: group, join, plot. Still only the columns that are needed are read.
    """)
    return


@app.cell
def _(client):
    scanners = (
        client.volumes.query()
        .filter(F.modality == "MR")
        .lazy()
        .group_by("manufacturer")
        .agg(patients=pl.col("patient_id").n_unique(), series=pl.len())
        .sort("series", "manufacturer", descending=[True, False])
        .collect()
    )
    scanners
    return (scanners,)


if __name__ == "__main__":
    app.run()
