"""Do an image's own functions run when it is built, once, and does one that fails change nothing?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import swell
from journey.apps import subject
from journey.running import running
from private_swell import PrivateSwell
from wheels import make_wheel, repack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import json, os, sys, time
from pathlib import Path
import swell

LEFT = {left!r}
WHAT = "one"

def note(text):
    with open(LEFT, "a") as file:
        file.write(text + "\\n")

def fetch(name, times=1):
    import ours_leek
    print("fetching", name, os.environ.get("PLACE"), os.environ.get("TOKEN"), flush=True)
    (Path(sys.prefix) / "fetched.json").write_text(json.dumps([name, times, WHAT, ours_leek.taste, sys.prefix]))
    note(f"fetched {{name}}")

def last():
    time.sleep({sleep})
    if {fails}:
        raise LookupError("the build is wrong")
    note("last")

image = (
    swell.Image.debian_slim()
    .pip_install("ours-leek", find_links={links!r}, extra_options="--no-deps --no-index")
    .env({{"PLACE": "here"}})
    .run_function(fetch, args=["weights"], kwargs={{"times": 2}}, secrets=[swell.Secret.from_name("hub")])
    .run_function(last, timeout={timeout})
)
app = swell.App("built", image=image)

@app.function()
def fetched() -> list:
    return [*json.loads((Path(sys.prefix) / "fetched.json").read_text()), os.environ.get("TOKEN")]
# {comment}
"""


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("links")
    make_wheel(folder, "ours_leek", "1.0", {"ours_leek.py": b"taste = 'mild'"})
    for name in ("msgspec", "httptools"):
        repack(folder, name)
    return str(folder)


class Program:
    """The program, deployed in one state or another."""

    def __init__(self, swell: PrivateSwell, folder: Path, links: str) -> None:
        self.swell = swell
        self.path = folder / "built.py"
        self.left = folder / "left"
        self.links = links

    def deploy(self, code: int = 0, **changed: object) -> str:
        """What a deploy that ends with this exit code says."""
        plain = {"left": str(self.left), "links": self.links, "fails": False, "timeout": 60, "sleep": 0, "comment": ""}
        self.path.write_text(PROGRAM.format(**{**plain, **changed}))
        words = ["swell", "deploy", str(self.path)]
        done = subprocess.run(words, env=self.swell.environ, capture_output=True, text=True, timeout=200)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def fetched(self) -> list[object]:
        found: list[object] = json.loads(self.swell.run("call", "built/fetched"))
        return found

    @property
    def noted(self) -> list[str]:
        return self.left.read_text().splitlines() if self.left.exists() else []


@pytest.fixture
def program(own_swell: PrivateSwell, tmp_path: Path, links: str) -> Iterator[Program]:
    own_swell.run("secret", "create", "hub", "TOKEN=s3cr3t-of-the-hub")
    yield Program(own_swell, tmp_path, links)
    own_swell.run("app", "stop", "built")
    own_swell.run("secret", "delete", "hub", "--force")


@pytest.mark.shows("Image.run_function", "raw_f", "args", "kwargs")
def test_functions_run_once_and_what_they_leave_is_part_of_the_environment(program: Program) -> None:
    said = program.deploy()
    assert program.noted == ["fetched weights", "last"]
    # Its secret is there for it and seen by nobody; the replica was not given it.
    assert "s3cr3t-of-the-hub" not in said
    name, times, what, taste, prefix, token = program.fetched()
    assert [name, times, what, taste, token] == ["weights", 2, "one", "mild", None]
    log = (Path(str(prefix)) / "swell-build.log").read_text()
    assert "fetching weights here" in log
    assert "s3cr3t-of-the-hub" not in log
    # Again, and with other code that they do not depend on: nothing is built.
    program.deploy(comment="another")
    assert program.noted == ["fetched weights", "last"]
    # Other code that one depends on: built anew.
    program.deploy(comment="another", sleep=0.01)
    assert program.noted == ["fetched weights", "last"] * 2
    assert program.fetched()[4] != prefix


def test_one_that_fails_fails_the_deploy_and_changes_nothing(program: Program) -> None:
    program.deploy(comment="before")
    before = program.fetched()
    failed = program.deploy(code=1, fails=True)
    assert "Image.run_function(last) failed while the environment was built; what it printed says why." in failed
    assert 'raise LookupError("the build is wrong")' in failed
    assert "swell/runtime" not in failed
    late = program.deploy(code=1, sleep=60, timeout=0.5)
    assert "Image.run_function(last) took longer than 0.5 s (its timeout=) and was ended." in late
    assert program.fetched() == before
    # A build that failed is tried again.
    assert program.noted.count("fetched weights") >= 3


@pytest.mark.usefixtures("own_server")
def test_what_only_a_container_can_hold_is_refused_all_at_once_and_nothing_is_done(tmp_path: Path) -> None:
    image = swell.Image.from_registry("ours/image:1").apt_install("ffmpeg").pip_install("ours-nowhere")
    with pytest.raises(swell.Error) as raised, running("function", image=image.run_commands("make")):
        pass
    assert raised.value.code == "not_available"
    assert "3 things that the local engine lacks; nothing was changed" in raised.value.message
    lines = raised.value.detail.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        f"do asks for Image.{step}"
        for step in ("from_registry('ours/image:1')", "apt_install('ffmpeg')", "run_commands('make')")
    ]
    assert all("no engine has it yet. " in line for line in lines)
    # One alone is told in the message.
    with (
        pytest.raises(swell.Error, match=r"do asks for Image\.apt_install\('x'\)"),
        running("function", image=swell.Image.debian_slim().apt_install("x")),
    ):
        pass


@pytest.mark.usefixtures("own_server")
def test_what_runs_in_a_sandbox_has_no_functions_that_would_run_outside_of_it() -> None:
    app = swell.App("walled", image=swell.Image.debian_slim().run_function(subject.pid))
    app.function(block_network=True)(subject.echo)
    with (
        pytest.raises(swell.Error, match=r"Image\.run_function would run outside of it: do that in an @enter"),
        app.run(),
    ):
        pass


@pytest.mark.shows("Image.uv_sync", "uv_project_dir", "groups", "extras", "frozen")
@pytest.mark.shows("Image.pip_install_from_pyproject", "pyproject_toml", "optional_dependencies")
@pytest.mark.shows("Image.pip_install_from_requirements", "requirements_txt")
@pytest.mark.usefixtures("own_server")
def test_packages_of_a_project(links: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for name in ("leek", "onion", "garlic"):
        make_wheel(shelf, f"ours_{name}", "1.0", {f"ours_{name}.py": f"taste = '{name}'".encode()})
    for name in ("msgspec", "httptools"):
        repack(shelf, name)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "ours"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["ours-leek"]\n'
        '[project.optional-dependencies]\nmore = ["ours-onion"]\n[dependency-groups]\nbulbs = ["ours-garlic"]\n'
    )
    (tmp_path / "requirements.txt").write_text("ours-leek==1.0  # mild\n")
    beside = Path(sys.executable).with_name("uv")
    alone = {**os.environ, "UV_FIND_LINKS": str(shelf), "UV_NO_INDEX": "1"}
    subprocess.run([beside, "lock", "--quiet"], cwd=tmp_path, env=alone, check=True, timeout=60)
    slim, only = swell.Image.debian_slim(), {"find_links": str(shelf), "extra_options": "--no-deps --no-index"}
    tastes = [("value", f"ours_{name}", "taste") for name in ("leek", "onion", "garlic")]

    def installed(image: swell.Image) -> list[str]:
        with running("function", image=image) as do:
            found = list(do.starmap(tastes, return_exceptions=True))
        return [each for each in found if isinstance(each, str)]

    assert installed(slim.pip_install_from_requirements(str(tmp_path / "requirements.txt"), **only)) == ["leek"]
    project = str(tmp_path / "pyproject.toml")
    assert installed(slim.pip_install_from_pyproject(project, **only)) == ["leek"]
    assert installed(slim.pip_install_from_pyproject(project, ["more"], **only)) == ["leek", "onion"]
    options = slim.pip_install(**only)
    monkeypatch.setenv("UV_FIND_LINKS", str(shelf))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    assert installed(options.uv_sync(str(tmp_path))) == ["leek"]
    assert installed(options.uv_sync(str(tmp_path), groups=["bulbs"], extras=["more"])) == ["leek", "onion", "garlic"]
    # Another project than was locked: taken as it is, or refused.
    (tmp_path / "pyproject.toml").write_text(
        (tmp_path / "pyproject.toml").read_text().replace("ours-leek", "ours-onion")
    )
    assert installed(options.uv_sync(str(tmp_path))) == ["leek"]
    with pytest.raises(swell.Error, match=r"uv cannot read .*uv\.lock"):
        installed(options.uv_sync(str(tmp_path), frozen=False))
    with pytest.raises(swell.exception.NotFoundError, match=r"There is no uv\.lock in .*: `uv lock` makes it"):
        installed(options.uv_sync(str(tmp_path / "shelf")))
    with pytest.raises(swell.Error, match=r"has no optional dependencies 'most'\. There are: more"):
        installed(slim.pip_install_from_pyproject(project, ["most"], **only))
