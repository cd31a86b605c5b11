"""Is the disk looked at when an image is deployed, and not where it is described?"""

from __future__ import annotations

from pathlib import Path

import pytest

import swell
from sdk import deployable
from swell.sdk import describe, run
from swell.sdk.image import notes, read
from swell.wire import context

ROOT = "/root"
"""Where Modal puts files."""


def steps(image: swell.Image, folder: Path) -> swell.Image:
    return (
        image.add_local_file(folder / "a.txt", "in/a.txt")
        .add_local_dir(folder / "d", "data")
        .add_local_python_source("greens_of_mine")
        .uv_pip_install("one", requirements=[str(folder / "r.txt")])
    )


def test_a_description_needs_nothing_on_the_disk_and_finds_what_is_there_at_deploy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = steps(swell.Image.debian_slim(), tmp_path)
    for place, text in {"a.txt": "", "d/x": "", "greens_of_mine.py": "", "r.txt": "two\n"}.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = read(image)
    assert [str(each.place) for each in found.attached] == ["in/a.txt", "data", "greens_of_mine.py"]
    assert found.packages == ("one", "two")
    assert read(found) == found
    assert image == steps(swell.Image.debian_slim(), tmp_path) != steps(swell.Image.debian_slim(), tmp_path / "d")


def test_a_relative_path_is_meant_from_where_the_program_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    image = swell.Image.debian_slim().add_local_file("a.txt", "a.txt")
    monkeypatch.chdir("/")
    assert [each.source for each in read(image).attached] == [tmp_path / "a.txt"]


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (lambda image: image.add_local_file("nowhere", "x"), r"add_local_file\('nowhere'\): there is no such file \(/"),
        (lambda image: image.add_local_file(".", "x"), "that is a folder, use add_local_dir"),
        (lambda image: image.add_local_dir("nowhere", "x"), r"add_local_dir\('nowhere'\): there is no such folder \(/"),
        (lambda image: image.add_local_dir(__file__, "x"), "that is a file, use add_local_file"),
        (lambda image: image.add_local_python_source("nowhere"), "no such module can be imported here"),
        (lambda image: image.uv_pip_install(requirements=["nowhere"]), "Requirements file /.*/nowhere cannot be read"),
    ],
)
def test_what_is_not_there_is_refused_at_deploy(add, says: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = swell.App("a", image=add(swell.Image.debian_slim()))
    app.function()(deployable.plain)
    with pytest.raises(swell.exception.NotFoundError, match=says) as raised:
        run.prepare(app, describe.Place("a", "default", {}))
    assert f'File "{__file__}"' in raised.value.detail


def test_a_place_below_root_is_noted_once_with_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    image = swell.Image.debian_slim().add_local_file(tmp_path / "a.txt", f"{ROOT}/in/a.txt")
    app = swell.App("a", image=image)
    app.function()(deployable.plain)
    app.function()(deployable.numbers)
    (said,) = run.prepare(app, describe.Place("a", "default", {})).notes
    assert said == (
        f"Image.add_local_file(…, '{ROOT}/in/a.txt'): a replica has no /root of its own; it is 'in/a.txt' in the "
        "folder of the program: open that, relative to the working directory"
    )
    (elsewhere,) = notes(image.workdir("/srv"))
    assert "from Path(__file__).parent" in elsewhere
    assert notes(swell.Image.debian_slim().add_local_file(tmp_path / "a.txt", "in/a.txt")) == []


def test_imports_of_an_image_whose_requirements_are_not_known_there_are_passed_over_aloud(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    image = swell.Image.debian_slim().uv_pip_install("one", requirements=["nowhere.txt"])
    monkeypatch.setattr(context, "inside", [context.Inside("a", "r1-1", "", "", packages=("other",))])
    with image.imports():
        import nowhere_to_be_found
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(context, "inside", [context.Inside("a", "r1-1", "", "", packages=("one", "two"))])
    with image.imports():
        import nowhere_to_be_found  # noqa: F401
    assert "No module named 'nowhere_to_be_found'; passed over" in capfd.readouterr().err
