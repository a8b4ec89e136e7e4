"""What the README and the docs show runs as written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_60_second_example_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    code = blocks("README.md", "python")[0]
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    printed = run.stdout.splitlines()
    assert "3.6" in run.stdout.split("3.0")[0]
    assert printed[-3] == "3.0"
    assert printed[-2].endswith("3.0")
    assert printed[-1].endswith("None 3.6")


def test_the_example_of_an_own_type_runs(tmp_path: Path) -> None:
    code = blocks("README.md", "python")[1] + "\nfrom vxdata.sdk import Client\nprint(Client('lake').genomic_tests)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "Namespace" in run.stdout, run.stderr


def test_the_first_commands_of_the_readme_are_make_demo_and_make_test() -> None:
    first = blocks("README.md", "sh")[0].splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", *sorted(p.as_posix() for p in Path("docs").rglob("*.md"))]
)
def test_every_link_and_named_file_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    named = re.findall(r"`((?:tests|docs|vxdata)/[\w/.-]+\.\w+)`", text)
    missing = [n for n in named if not (ROOT / n).exists()]
    missing += [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert missing == []
