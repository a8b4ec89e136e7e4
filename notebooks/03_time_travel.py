"""Time travel: `marimo edit notebooks/03_time_travel.py`, or run it as a script.

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

    from vxdata.schemas import Resource
    from vxdata.sdk import Client, F
    from vxdata_cli.demo import demo_uri


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Time travel

    Nothing in a lake is overwritten: each change is a new version. So every past state can be asked.

    `vxdata demo` loaded the IDC index, and then labelled the axial T2 series of PROSTATEx. First we look at that lake,
    without writing to it. Changes of our own go to a small lake in a temporary folder.
    """)
    return


@app.cell
def _():
    idc = Client(os.environ.get("VXDATA_URI") or demo_uri())
    return (idc,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## As of an instant

    `client.as_of(instant)` sees the lake as it was then. The index was loaded as of the day of its release.
    """)
    return


@app.cell
def _(idc):
    loaded_at = idc.datasources.retrieve("datasource/prostatex").created_at
    labelled = F.volume_type == "T2"
    states = pl.DataFrame(
        {
            "seen": seen,
            "volumes": lake.volumes.query().count(),
            "labelled": lake.volumes.query().filter(labelled).count(),
        }
        for seen, lake in [(str(loaded_at), idc.as_of(loaded_at)), ("now", idc)]
    )
    states
    return (states,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The history of one resource

    `history` returns all versions, oldest first. Each is valid from `valid_from` up to `valid_to`; the last goes on.
    """)
    return


@app.cell
def _(idc):
    one_labelled = idc.volumes.query().filter(F.volume_type == "T2").sort("identifier").limit(1).collect()
    versions = pl.DataFrame(
        {"valid_from": v.valid_from, "valid_to": v.valid_to, "volume_type": v.payload.volume_type}
        for identifier in one_labelled["identifier"]
        for v in idc.volumes.history(identifier)
    )
    versions
    return (versions,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Which rows did the model train on?

    `client.snapshot()` is a client on exactly what is there now. Its token is a short text: keep it with the model.
    Here is a small lake, a model that trains on it, and what happens to the lake afterwards.
    """)
    return


@app.cell
def _():
    folder = tempfile.mkdtemp(prefix="vxdata-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # gone when the notebook is closed
    client = Client(f"{folder}/lake")
    client.resources.create(
        [
            Resource(identifier="datasource/bamberg"),
            Resource(identifier="patient/BB00017", parent_identifier="datasource/bamberg"),
            Resource(identifier="imagingstudy/BB00017/1", parent_identifier="patient/BB00017"),
            *(
                Resource(
                    identifier=f"volume/BB00017/1/{n}",
                    parent_identifier="imagingstudy/BB00017/1",
                    payload={"volume_type": "T2", "slice_thickness": thickness},
                )
                for n, thickness in enumerate([3.0, 3.0, 5.0])
            ),
        ]
    )

    token = client.snapshot().token
    trained_on = client.volumes.query().filter(F.slice_thickness <= 3).sort("identifier").collect()

    client.volumes.update("volume/BB00017/1/0", {"slice_thickness": 3.6}, reason="the header was wrong")
    client.volumes.delete("volume/BB00017/1/1", reason="consent withdrawn")
    token
    return client, token, trained_on


@app.cell(hide_code=True)
def _():
    mo.md("""
    Next year, with nothing but the token: the same rows, and what became of them.
    """)
    return


@app.cell
def _(client, token, trained_on):
    then = Client(client.uri, snapshot=token)
    again = then.volumes.query().filter(F.slice_thickness <= 3).sort("identifier").collect()
    assert again.equals(trained_on)

    now = client.volumes.query().select("identifier", "slice_thickness").collect()
    compared = again.select("identifier", "slice_thickness").join(now, on="identifier", how="left", suffix="_now")
    fate = compared.with_columns(is_deleted=~pl.col("identifier").is_in(now["identifier"].implode()))
    fate
    return again, fate


if __name__ == "__main__":
    app.run()
