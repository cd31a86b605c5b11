"""Whose server is it, and which key is it sent?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import swell
from sdk.server import KEY, Server, serving
from swell.sdk.client import Client


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"double": lambda x: 2 * x, "count": lambda n: iter(range(n))}) as state:
        yield state


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with a key, on which a server says that it listens at 192.0.2.1."""
    for name in ("SWELL_KEY", "SWELL_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SWELL_HOME", str(tmp_path))
    (tmp_path / "key").write_text("sk-local\n")
    (tmp_path / "lock").write_text('{"host": "192.0.2.1", "port": 8470}')
    return tmp_path


@pytest.mark.parametrize(
    "url", ["", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1/", "http://192.0.2.1:8470/"]
)
def test_the_local_key_goes_to_servers_here(home: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SWELL_URL", url)
    assert Client.from_settings().key == "sk-local"


@pytest.mark.parametrize(
    "url",
    [
        "http://far.example:8470",
        "https://far.example",
        "http://127.evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1@evil.example",
        "http://192.0.2.1:9999",
        "http://10.0.0.1",
    ],
)
def test_the_local_key_goes_nowhere_else(home: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SWELL_URL", url)
    with pytest.raises(swell.Error, match="Set SWELL_KEY") as refused:
        Client.from_settings()
    assert refused.value.code == "no_key"
    monkeypatch.setenv("SWELL_KEY", "sk-far")
    assert Client.from_settings().key == "sk-far"


def test_a_server_of_another_state_directory_is_told_from_a_key_that_is_wrong(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("SWELL_KEY", "SWELL_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SWELL_HOME", str(tmp_path))
    port = server.url.rpartition(":")[2]
    monkeypatch.setenv("SWELL_PORT", port)
    # Nothing runs here, so the port is all there is to go by; with and without a key of our own.
    for key in ("", "sk-old\n"):
        (tmp_path / "key").write_text(key)
        for ask in (
            lambda: Client.from_settings().apps(),
            lambda: swell.Function.from_name("app", "double").remote(1),
            lambda: list(swell.Function.from_name("app", "count").remote_gen(1)),
            lambda: list(swell.Function.from_name("app", "double").map([1, 2])),
        ):
            with pytest.raises(swell.exception.AuthError, match="belongs to another state directory") as raised:
                ask()
            assert f"No server runs on {tmp_path};" in str(raised.value)
    assert server.calls == []
    (tmp_path / "key").write_text(KEY)
    assert swell.Function.from_name("app", "double").remote(1) == 2
    # One that says it listens there is the one that is meant.
    (tmp_path / "key").write_text("sk-old")
    (tmp_path / "lock").write_text(f'{{"host": "127.0.0.1", "port": {port}}}')
    with pytest.raises(swell.exception.AuthError, match="The key is not this server's"):
        Client.from_settings().apps()
