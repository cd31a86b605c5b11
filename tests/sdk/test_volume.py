"""Which volumes has a function, and at which paths?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import swell
from sdk import deployable
from swell.model.volume import VolumeUse
from swell.model.workload import Revision
from swell.sdk import describe, run
from swell.sdk.storage import found


def described(app: swell.App) -> Revision:
    (revision,) = run.prepare(app, describe.Place("a", "staging", {})).app.revisions
    return revision


@pytest.mark.shows("App", "volumes")
def test_those_of_the_app_are_at_other_paths_than_its_own() -> None:
    data, models = swell.Volume.from_name("data"), swell.Volume.from_name("models", environment_name="prod")
    app = swell.App("a", volumes={"/data": data, "/shared/": data})
    app.function(volumes={"/data": models.read_only()})(deployable.plain)
    assert described(app).volumes == (
        VolumeUse("prod", "models", "/data", read_only=True),
        VolumeUse("staging", "data", "/shared"),
    )


def test_what_cannot_be_is_refused() -> None:
    data = swell.Volume.from_name("data")
    app = swell.App("a", volumes={"/data": data})
    app.function(volumes={"/data/inner": data})(deployable.plain)
    with pytest.raises(swell.Error, match=r"one volume cannot be in another, and /data/inner is in /data"):
        described(app)
    with pytest.raises(swell.Error, match="it leads out of the volume"):
        swell.App("a", volumes={"/data": data.with_mount_options(sub_path="../x")})


def test_in_a_sandbox_there_is_no_template_that_could_be_forked() -> None:
    app = swell.App("a")
    app.function(volumes={"/data": swell.Volume.from_name("data")}, block_network=True)(deployable.plain)
    assert not described(app).template


@pytest.mark.timeout(30)
def test_a_folder_is_read_once_whatever_links_and_pipes_are_in_it(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "a").touch()
    (tmp_path / "d" / "e" / "up").symlink_to(tmp_path / "d")
    (tmp_path / "d" / "e" / "self").symlink_to(".")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b").touch()
    (tmp_path / "d" / "link").symlink_to(tmp_path / "other")
    assert sorted(os.path.normpath(path) for path, _ in found(tmp_path / "d", "to")) == ["to/e/a", "to/link/b"]
    os.mkfifo(tmp_path / "d" / "pipe")
    with pytest.raises(swell.Error, match="pipe is no file that could be kept"):
        list(found(tmp_path / "d", "to"))
