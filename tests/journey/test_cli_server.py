"""Does a server keep its door as it was told, and say what is wrong with its own files?"""

from __future__ import annotations

import http.client
import json
import socket

import pytest
from shell import refusal

from private_swell import PrivateSwell, private_swell, unstarted_swell
from swell.serve import served_hosts
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


def test_a_server_is_called_by_what_it_listens_on() -> None:
    assert served_hosts(Settings("/h")) == (False, ("127.0.0.1",))
    assert served_hosts(Settings("/h", host="swell.lan", allowed_hosts=("a",))) == (False, ("swell.lan", "a"))
    for host in ("0.0.0.0", "::", ""):
        assert served_hosts(Settings("/h", host=host)) == (True, (socket.gethostname(),))


def test_a_key_that_others_can_read_is_refused_at_start() -> None:
    with unstarted_swell() as swell:
        swell.run("up", "-d")
        swell.run("down")
        (swell.home / "call-key").chmod(0o644)
        refusal(swell, "up", "-d")
        assert "can be read by other users" in swell.log()
