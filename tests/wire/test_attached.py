"""Does a server that was started for clients hear that it is to stay, and is the truth said of it?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swell.supervise import clients
from swell.supervise.lock import Lock, holder
from swell.wire.attached import keep, note
from swell.wire.identity import Identity, myself
from swell.wire.paths import Home


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="sw") as folder:
        yield Home(Path(folder))


@pytest.fixture
def lock(home: Home) -> Iterator[Lock]:
    """That of a server for clients: us."""
    held = Lock(home, attached=True)
    held.say("ready", host="127.0.0.1", port=1)
    yield held
    held.release()


def test_a_server_that_is_kept_is_wanted_without_clients_and_says_so(home: Home, lock: Lock) -> None:
    assert home.for_clients()
    assert clients.ending(home)
    assert keep(home) == "kept"
    # From this moment, whether or not it has looked.
    assert not clients.ending(home)
    assert clients.check_still_wanted(home, lock)
    assert not home.for_clients()
    found = holder(home)
    assert found is not None
    assert (found.attached, found.state) == (False, "ready")
    clients.forget(home)
    assert clients.check_still_wanted(home, lock)
    assert keep(home) == "stays"
    assert not home.attached.exists()


def test_a_server_that_is_ending_cannot_be_kept(home: Home, lock: Lock) -> None:
    assert not clients.check_still_wanted(home, lock)
    assert home.ending() == myself().pid
    assert keep(home) == "ends"


def test_no_server_cannot_be_kept(home: Home) -> None:
    assert keep(home) == "ends"
    Lock(home).release()
    assert keep(home) == "ends"


def test_a_note_of_an_earlier_server_with_the_same_pid_keeps_none(home: Home, lock: Lock) -> None:
    us = myself()
    note(home, Identity(us.pid, us.start_ticks - 1))
    assert not clients.check_still_wanted(home, lock)
    assert home.for_clients()
