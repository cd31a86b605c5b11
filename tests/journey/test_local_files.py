"""Do files that travel with a program lie where it is said that they do?"""

from __future__ import annotations

from pathlib import Path

import pytest

from journey.callers import call, command
from private_swell import PrivateSwell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = "/root"
"""Where Modal puts files."""
PROGRAM = """
import os
from pathlib import Path
import swell

app = swell.App("files")
HERE = Path(__file__).parent
ROOT = "/root"
image = (
    swell.Image.debian_slim()
    .add_local_file("data/labels.json", "labels.json")
    .add_local_file(os.path.abspath("data/labels.json"), "deep/down/labels.json")
    .add_local_dir("data", ROOT + "/x")
    .add_local_dir(HERE / "data", "y")
    .add_local_python_source("greens")
    .uv_pip_install(requirements=["none.txt", str(HERE / "none.txt")])
)


@app.function(image=image)
def texts(paths: list[str]) -> list[str | None]:
    return [open(path).read() if os.path.exists(path) else None for path in paths]


@app.function(image=image)
def taste() -> str:
    import greens

    return greens.TASTE


@app.function()
def bare() -> list[str]:
    return sorted(os.listdir())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.json").write_text("1")
    (tmp_path / "greens.py").write_text("TASTE = 'mild'\n")
    (tmp_path / "none.txt").write_text("# nothing more\n")
    (tmp_path / "files.py").write_text(PROGRAM)
    return tmp_path


def test_files_lie_where_they_are_put_whatever_they_were_called(own_swell: PrivateSwell, folder: Path) -> None:
    said = command(own_swell, "deploy", "files.py", cwd=folder)
    assert said.code == 0, said.err
    places = ["labels.json", "deep/down/labels.json", "x/labels.json", "y/labels.json", "data/labels.json"]
    assert call(own_swell, "files/texts", [places]).value == ["1", "1", "1", "1", None]
    assert call(own_swell, "files/taste").value == "mild"
    beside = call(own_swell, "files/bare").value
    assert "files.py" in beside
    assert not {"labels.json", "x", "greens.py"} & set(beside)
    # The absolute path is not there, and who deploys is told so, once.
    assert call(own_swell, "files/texts", [[f"{ROOT}/x/labels.json"]]).value == [None]
    (note,) = [line for line in said.err.splitlines() if line.startswith("Note: ")]
    assert f"'{ROOT}/x'): a replica has no /root of its own; it is 'x' in the folder of the program" in note


def test_a_file_that_is_missing_is_told_at_deploy_with_the_line_and_where_it_was_looked_for(
    own_swell: PrivateSwell, folder: Path
) -> None:
    (folder / "data" / "labels.json").unlink()
    said = command(own_swell, "deploy", "files.py", cwd=folder)
    assert said.code == 1
    assert f"there is no such file ({folder / 'data' / 'labels.json'})" in said.err
    assert '.add_local_file("data/labels.json", "labels.json")' in said.err
    elsewhere = command(own_swell, "deploy", str(folder / "files.py"), cwd=folder / "data")
    assert elsewhere.code == 1
    assert f"there is no such file ({folder / 'data' / 'data' / 'labels.json'})" in elsewhere.err
