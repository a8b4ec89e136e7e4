"""What the tests of the command line share: running it (also on a terminal), and small releases of the IDC index."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextvars import copy_context
from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parents[2]
VXDATA = (sys.executable, "-m", "vxdata_cli")
PROSTATE, BLANKS, EQUALS, NEW = "prostate_3t", "rider_phantom_mri", "gbm_dsc_mri_dro", "qin_prostate_repeatability"
DATES = {6: "2021-01-05", 7: "2021-03-04", 8: "2022-05-06"}


def environment() -> dict[str, str]:
    """This process's environment without its terminal, in which the packages are found whether installed or not."""
    terminal = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")
    kept = {name: value for name, value in os.environ.items() if name not in terminal}
    return kept | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"}


def run(*args: str | Path, command: tuple[str, ...] = VXDATA) -> subprocess.CompletedProcess[str]:
    """Run `vxdata` with pipes as stdout and stderr, and nobody to answer."""
    return subprocess.run(
        [*command, *map(str, args)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def start_on_terminal(*args: str | Path, columns: int = 80) -> tuple[subprocess.Popen[bytes], int]:
    """Start `vxdata` on a terminal; return the process and the terminal's other end."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        [*VXDATA, *map(str, args)],
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment() | {"TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(its)
    return process, ours


def read_terminal(terminal: int, until: str | None = None) -> str:
    """Read what was written to a terminal, up to a word or to the end."""
    data = b""
    while until is None or until.encode() not in data:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # the process is gone
            break
        data += piece
    return data.decode()


def run_on_terminal(*args: str | Path, columns: int = 80) -> tuple[int, str]:
    """Run `vxdata` on a terminal; return its exit code and all that it wrote, control sequences included."""
    process, terminal = start_on_terminal(*args, columns=columns)
    written = read_terminal(terminal)
    os.close(terminal)
    return process.wait(), written


def plain(written: str) -> str:
    """Text without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r\n", "\n")


# ---- small releases


def installed_index() -> Path:
    """The folder of the installed index."""
    from vxdata.sources.idc import find_release

    return find_release().index.parent


def rows_of_installed() -> pl.DataFrame:
    """A few hundred series of the installed index: among them ids with blanks and '=', and what the demo asks for."""
    is_t2 = pl.col("SeriesDescription").str.starts_with("t2_tse_tra")
    is_zones = pl.col("analysis_result_id") == "prostatex_seg_zones"
    few_of_prostatex = (pl.col("collection_id") == "prostatex") & (pl.col("PatientID") < "ProstateX-0040")
    few_of_prostatex &= is_t2 | is_zones
    wanted = pl.col("collection_id").is_in([PROSTATE, BLANKS, EQUALS, NEW]) | few_of_prostatex
    return pl.scan_parquet(installed_index() / "idc_index.parquet").filter(wanted).sort("SeriesInstanceUID").collect()


def write_release(folder: Path, rows: pl.DataFrame, version: int, dates: Mapping[int, str] = DATES) -> Path:
    """Write an index with its siblings, as the package has them; return the folder."""
    folder.mkdir(parents=True)
    stamped = rows.with_columns(series_revised_idc_version=pl.lit(version, pl.Int64))
    stamped.write_parquet(folder / "idc_index.parquet")
    known = {number: date for number, date in dates.items() if number <= version}
    columns = {"idc_version": list(known), "version_timestamp": list(known.values())}
    pl.DataFrame(columns).write_parquet(folder / "version_metadata_index.parquet")
    collections = installed_index() / "collections_index.parquet"
    (folder / collections.name).write_bytes(collections.read_bytes())
    return folder


def first_release() -> pl.DataFrame:
    """Four collections."""
    return rows_of_installed().filter(pl.col("collection_id") != NEW)


def second_release() -> pl.DataFrame:
    """The same, but: a collection, a patient and a single series withdrawn; series changed; a collection new."""
    rows = rows_of_installed().filter(pl.col("collection_id") != BLANKS)
    patients = rows.filter(pl.col("collection_id") == PROSTATE)["PatientID"].unique().sort()
    series = rows.filter(pl.col("collection_id") == EQUALS)["SeriesInstanceUID"]
    is_changed = pl.col("SeriesInstanceUID").is_in(series[1:9].implode())
    return rows.filter(
        pl.col("PatientID") != patients[0],
        pl.col("SeriesInstanceUID") != series[0],
    ).with_columns(
        SeriesDescription=pl.when(is_changed).then(pl.lit("mended [by hand]")).otherwise("SeriesDescription"),
        license_short_name=pl.when(is_changed).then(pl.lit("CC0")).otherwise("license_short_name"),
        PatientSex=pl.when(pl.col("PatientID") == patients[1]).then(pl.lit("O")).otherwise("PatientSex"),
    )


# ---- in this process, where a test needs no process of its own


def run_here(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `vxdata` in this process with pipes as stdout and stderr; it takes no time to start."""
    from vxdata_cli import main
    from vxdata_cli.out import Out, out

    def call() -> int:
        try:
            main.app([*map(str, args)], prog_name="vxdata")
        except SystemExit as end:
            return int(end.code or 0)
        except Exception as error:
            return main.report(error)
        return 0

    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    vars(out).clear()
    vars(out).update(vars(Out()))
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = copy_context().run(call)
    vars(out).clear()
    vars(out).update(vars(Out()))
    written = [stream.buffer.getvalue().decode() for stream in streams]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(args, code, *written)
