"""Does a server keep its door as it was told, and say what is wrong with its own files?"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from shell import refusal

from private_swell import PrivateSwell, free_port, private_swell, unstarted_swell
from swell.model.errors import SwellError
from swell.serve import Up, gateway, served_hosts
from swell.wire.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def asked(swell: PrivateSwell, **headers: str) -> tuple[int, str]:
    """Status, and the error's code, of a listing."""
    connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=60)
    key = (swell.home / "key").read_text().strip()
    connection.request("GET", "/api/apps", headers={"Authorization": f"Bearer {key}", **headers})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    return answer.status, said["error"]["code"] if isinstance(said, dict) else ""


def test_hosts_and_origins_that_are_allowed_reach_the_api() -> None:
    page = "http://console.example"
    with private_swell(allowed_hosts="swell.example,other.example", allowed_origins=page) as swell:
        for name in ("swell.example", f"other.example:{swell.port}", f"127.0.0.1:{swell.port}"):
            assert asked(swell, Host=name) == (200, "")
        assert asked(swell, Host="evil.example") == (403, "bad_host")
        assert asked(swell, Origin=page) == (200, "")
        assert asked(swell, Origin="http://evil.example") == (403, "bad_origin")


def test_what_to_try_works_on_a_server_that_is_open_to_the_network(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text('import swell\n\napp = swell.App("shop")\n\n\n@app.function()\ndef two() -> int:\n    return 2\n')
    with private_swell(host="0.0.0.0") as swell:
        line = swell.run("deploy", str(path)).partition("Try: ")[2]
        assert call(line, swell.environ) == "2"
        swell.environ["SWELL_KEY"] = (swell.home / "key").read_text().strip()
        line = swell.run("deploy", str(path)).partition("Try: ")[2]
        assert '"Authorization: Bearer $SWELL_KEY"' in line
        assert call(line, swell.environ) == "2"


def call(line: str, environ: Mapping[str, str]) -> str:
    """What a shell prints of it."""
    done = subprocess.run(["sh", "-c", line], env=environ, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_a_port_that_is_given_goes_before_the_environments_and_clients_elsewhere_need_its_url(tmp_path: Path) -> None:
    with unstarted_swell() as swell:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        assert url in swell.run("up", "-d", "--port", str(port))
        key = (swell.home / "key").read_text().strip()
        elsewhere = {**swell.environ, "SWELL_HOME": str(tmp_path), "SWELL_URL": url, "SWELL_KEY": key}
        done = subprocess.run(["swell", "ps", "--json"], env=elsewhere, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
        # On its own directory it is found without, though the environment names another port.
        assert swell.run("ps", "--json") == "[]\n"


def test_a_server_is_called_by_what_it_listens_on() -> None:
    assert served_hosts(Settings("/h")) == (False, ("127.0.0.1",))
    assert served_hosts(Settings("/h", host="swell.lan", allowed_hosts=("a",))) == (False, ("swell.lan", "a"))
    for host in ("0.0.0.0", "::", ""):
        assert served_hosts(Settings("/h", host=host)) == (True, (socket.gethostname(),))


@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [(None, 0, "no_key_file"), ("sk-" + "a" * 64, 0o644, "key_exposed"), ("", 0o600, "bad_key_file")],
)
def test_a_gateway_takes_no_key_that_is_none(tmp_path: Path, text: str | None, mode: int, code: str) -> None:
    if text is not None:
        (tmp_path / "key").write_text(text)
        (tmp_path / "key").chmod(mode)

    async def begun(listener: socket.socket) -> None:
        await gateway(Settings(str(tmp_path)), 0, listener, Up(-1, -1))

    with socket.socket() as listener, pytest.raises(SwellError) as refused:
        asyncio.run(begun(listener))
    assert refused.value.code == code
    assert str(tmp_path / "key") in refused.value.message


def test_a_key_that_others_can_read_is_refused_at_start() -> None:
    with unstarted_swell() as swell:
        swell.run("up", "-d")
        swell.run("down")
        (swell.home / "call-key").chmod(0o644)
        refusal(swell, "up", "-d")
        assert "can be read by other users" in swell.log()
