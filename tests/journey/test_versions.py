"""Can what was deployed before be looked at, and gone back to? Through the command line, on a real platform."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from private_swell import Failed, PrivateSwell
from wheels import make_wheel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import swell

image = swell.Image.debian_slim(){packages}
app = swell.App("told", image=image)


@app.function()
def version() -> str:
    {body}
"""

Deploy = Callable[..., None]


@pytest.fixture
def deploy(own_swell: PrivateSwell, tmp_path: Path) -> Deploy:
    """Deploys a program that returns what it is told to."""

    def deploy(body: str, packages: str = "", *words: str) -> None:
        file = tmp_path / "told.py"
        file.write_text(PROGRAM.format(body=body, packages=packages))
        own_swell.run("deploy", *words, str(file))

    return deploy


def told(swell: PrivateSwell) -> str:
    with swell.connect() as client:
        return str(client.call("told/version").value)


def test_back_to_a_version_and_back_from_there(own_swell: PrivateSwell, deploy: Deploy) -> None:
    for number in ("one", "two", "three"):
        deploy(f"return {number!r}", "", "--tag", f"the {number}")
    words = ["swell", "app", "rollback", "told", "v1"]
    back = subprocess.run(words, env=own_swell.environ, capture_output=True, text=True, timeout=120, check=True)
    assert "deploying v1 again" in back.stderr
    assert "told is v4 now" in back.stdout
    assert told(own_swell) == "one"
    assert "told is v5 now" in own_swell.run("app", "rollback", "told")
    assert told(own_swell) == "three"
    _, *lines = own_swell.run("app", "history", "told").splitlines()
    assert [line.split()[0] for line in lines] == ["v5*", "v4", "v3", "v2", "v1"]
    assert "rollback to v1" in lines[1]
    assert "the three" in lines[0]
    listed = own_swell.run("app", "list").splitlines()
    assert [line.split()[:3] for line in listed if line.startswith("told")] == [["told", "5", "version"]]
    with pytest.raises(Failed, match=r"v9 is not kept of app told\. There are: v1, v2, v3, v4, v5\."):
        own_swell.run("app", "rollback", "told", "v9")
    with pytest.raises(Failed, match="'newest' is no version: one is written v3 or 3"):
        own_swell.run("app", "rollback", "told", "newest")
    with pytest.raises(Failed, match="There is no app 'nobody'"):
        own_swell.run("app", "history", "nobody")
    own_swell.run("app", "stop", "told")


def test_an_environment_that_is_gone_is_built_again(own_swell: PrivateSwell, deploy: Deploy, tmp_path: Path) -> None:
    make_wheel(tmp_path, "oldish", "1.0", {"oldish.py": b"word = 'of old'"})
    packages = f'.uv_pip_install("oldish", find_links={str(tmp_path)!r})'
    deploy("return __import__('oldish').word", packages)
    deploy("return 'new'")
    for folder in ("envs", "bundles"):
        shutil.rmtree(own_swell.home / folder)
    own_swell.run("app", "rollback", "told")
    assert told(own_swell) == "of old"
    own_swell.run("app", "stop", "told")


def test_source_that_is_lost_is_said_to_be(own_swell: PrivateSwell, deploy: Deploy) -> None:
    deploy("return 'lost'")
    lost = max((own_swell.home / "blobs").iterdir(), key=os.path.getmtime)
    time.sleep(0.01)
    deploy("return 'kept'")
    lost.unlink()
    with pytest.raises(Failed, match="The source of v1 is not here any more"):
        own_swell.run("app", "rollback", "told")
    assert told(own_swell) == "kept"
    own_swell.run("app", "stop", "told")
