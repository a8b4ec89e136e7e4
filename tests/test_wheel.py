"""The wheel holds what users import, the console script, and no package called `cli`."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_two_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info" not in name}
    assert tops == {"vxdata", "vxdata_cli"}
    assert "vxdata/py.typed" in wheel.namelist()


def test_the_console_script_is_vxdata(wheel: zipfile.ZipFile) -> None:
    scripts = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(scripts).decode().split() == ["[console_scripts]", "vxdata", "=", "vxdata_cli.main:main"]


def test_the_wheel_runs_without_the_source_tree(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = "import vxdata.sdk, vxdata_cli.main as m; print(vxdata.sdk.__file__, m.__file__)"
    run = [sys.executable, "-c", code]
    printed = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.count(str(tmp_path)) == 2


def test_the_metadata_says_which_python_and_which_extra(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_all("Provides-Extra") == ["idc"]
