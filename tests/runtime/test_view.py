"""Is a sandbox shown nothing of the node that neither its author named nor its interpreter needs?"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from swell.model.errors import SwellError
from swell.model.isolation import Isolation
from swell.runtime.runner.sandbox import view
from swell.wire.paths import Home

BASE = str(Path(os.path.realpath(sys.executable)).parent.parent)
SITE = "lib/python3.11/site-packages"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "user" / ".local" / "state")
    for folder in (home.environments, home.bundles / "sha256-1", home.back):
        folder.mkdir(parents=True)
    return home


def an_environment(folder: Path, *added: object, made_of: str = "") -> Path:
    """Its interpreter. `added`: what a path file in it says."""
    (folder / "bin").mkdir(parents=True)
    (folder / SITE).mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "pyvenv.cfg").write_text(f"home = {made_of or os.path.dirname(os.path.realpath(sys.executable))}\n")
    (folder / SITE / "x.pth").write_text("".join(f"{line}\n" for line in ("import sys", *added)))
    return folder / "bin" / "python"


def readable(python: Path, home: Home, isolation: Isolation = Isolation()) -> tuple[str, ...]:
    return view.of(isolation, python, home.bundles / "sha256-1", home, "").readable


def test_what_was_installed_shows_nothing_outside_of_its_environment(home: Home, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    plain = an_environment(home.environments / "plain")
    added = (home.root, tmp_path / "private", f"{tmp_path}/private/../..", "/home/..", "//", "/")
    hostile = an_environment(home.environments / "hostile", *added)
    assert str(home.environments / "hostile") in readable(hostile, home)
    assert {path.replace("hostile", "plain") for path in readable(hostile, home)} == set(readable(plain, home))
    assert BASE in readable(plain, home) or BASE.startswith(view.SYSTEM)


@pytest.mark.parametrize("made_of", ["{root}/bin", "{root}/../bin", "{root}/run/back/../bin"])
def test_nor_does_what_says_what_it_was_made_of(home: Home, made_of: str) -> None:
    """It is put back when an environment is built (test_environment.py); one that was built before is refused."""
    python = an_environment(home.environments / "e", made_of=made_of.format(root=home.root))
    with pytest.raises(SwellError, match=r"uses the folder .*, and the server's state directory .* is there: start"):
        readable(python, home)


def test_of_the_users_own_interpreter_it_is_shown_what_its_path_files_add(home: Home, tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    python = an_environment(tmp_path / "venv", tmp_path / "library", tmp_path / "not-there", "/", "/usr/lib")
    assert {str(tmp_path / "venv"), str(tmp_path / "library")} <= set(readable(python, home))
    assert str(tmp_path / "not-there") not in readable(python, home)


def test_it_may_be_in_the_servers_state_directory_beside_what_is_the_servers(home: Home) -> None:
    """As that of a user is whose home is the state directory."""
    (home.root / "library").mkdir()
    python = an_environment(home.root / "venv", home.root / "library")
    assert {str(home.root / "venv"), str(home.root / "library")} <= set(readable(python, home))


@pytest.mark.parametrize("kept", ["run", "logs", "volumes", "bundles", "master.key", "control.db"])
def test_but_shows_nothing_that_is_the_servers_wherever_that_is_kept(home: Home, tmp_path: Path, kept: str) -> None:
    """On a larger disk, for example."""
    (tmp_path / "disk").mkdir()
    moved = home.root / kept
    if moved.is_dir():
        moved.rename(tmp_path / "disk" / kept)
    moved.symlink_to(tmp_path / "disk" / kept)
    with pytest.raises(SwellError, match=r"uses the folder .*, and the server's state directory .* is there: start"):
        readable(an_environment(tmp_path / "venv", tmp_path / "disk"), home)


@pytest.mark.parametrize("added", ["{user}", "{root}", "{root}/envs", "{user}/.local/../..", "{user}/link"])
def test_but_not_the_servers_state_directory(home: Home, tmp_path: Path, added: str) -> None:
    user = tmp_path / "user"
    (user / "link").symlink_to("/")
    python = an_environment(tmp_path / "venv", added.format(user=user, root=home.root))
    with pytest.raises(SwellError, match=r"uses the folder .*, and the server's state directory .* is there: start"):
        readable(python, home)


@pytest.mark.parametrize("named", ["{user}", "{root}/envs", "{user}/link"])
def test_nor_does_its_author_name_that(home: Home, tmp_path: Path, named: str) -> None:
    user = tmp_path / "user"
    (user / "link").symlink_to("/")
    python = an_environment(home.environments / "e")
    folder = named.format(user=user, root=home.root)
    for isolation in (Isolation(readable=(folder,)), Isolation(writable=(folder,))):
        with pytest.raises(SwellError, match=r"^@isolated names the folder .* is there: name another\.$"):
            readable(python, home, isolation)
