"""Is a member of a gang told who the others are, is its port left to its code, and does that hear of its end?"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replica_harness import ReplicaProcess, function, until

from swell.model.call import Body, call_id
from swell.model.gang import Gang
from swell.runtime.gang import Meeting, cluster_of, variables
from swell.runtime.request import Head, Request
from swell.runtime.runner.queued.lane import request_of, sendable
from swell.wire import http
from swell.wire.calls import Granted, Member
from swell.wire.child import Drain, Forget, Reattach

ID = call_id(1_700_000_000_000, b"0123456789")
HOSTS = st.sampled_from(["127.0.0.1", "10.0.0.7", "node-3.example", "[::1]"])
PEERS = st.lists(st.tuples(HOSTS, st.integers(1, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}"), min_size=1)
SOURCE = """
import asyncio, os, pathlib, signal, time
import swell

def thing(do=""):
    info = swell.get_cluster_info()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "JAX_COORDINATOR_ADDRESS")
    if do == "wait":
        pathlib.Path("begun").touch()
        while not swell.stopping():
            time.sleep(0.01)
        return "stopped"
    if do == "look":
        pathlib.Path("begun").touch()
        while not pathlib.Path("look").exists():
            time.sleep(0.01)
        return swell.stopping()
    if do == "folder":
        (swell.checkpoint_dir() / "x").write_text(info.cluster_id)
        return os.environ["SWELL_CHECKPOINT_DIR"]
    return [info.rank, info.cluster_id, info.peers, info.container_ips, *(os.environ[name] for name in names)]

async def handled(do=""):
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
    pathlib.Path("begun").touch()
    while not (told and swell.stopping()):
        await asyncio.sleep(0.01)
    return told[0]
"""


def request_for(call: Granted) -> Request:
    """What the replica reads of what its runner writes."""
    lines = request_of(call).partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    fields = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
    head = Head("POST", b"/call/thing", list(fields.items()))
    return Request(head, *(fields[http.lower(name)] for name in (http.REQUEST_ID, http.REMAINING_MS, http.HAND_OUT)))


@given(PEERS, st.integers(1, 1 << 40))
def test_what_its_runner_is_told_of_a_gang_is_what_its_code_finds(peers: list[str], token: int) -> None:
    found = []
    for rank in range(len(peers)):
        call = Granted(ID, token + rank, "thing", Body(""), "", 60.0, member=Member(rank, tuple(peers)))
        assert sendable(call)
        cluster = cluster_of(request_for(call))
        assert cluster is not None
        assert (cluster.rank, cluster.peers) == (rank, tuple(peers))
        told = variables(cluster)
        assert (told["RANK"], told["WORLD_SIZE"]) == (str(rank), str(len(peers)))
        assert f"{told['MASTER_ADDR']}:{told['MASTER_PORT']}" == told["JAX_COORDINATOR_ADDRESS"] == peers[0]
        found.append(cluster.id)
    assert len(set(found)) == 1
    again = Granted(ID, token + len(peers), "thing", Body(""), "", 60.0, member=Member(0, tuple(peers)))
    assert cluster_of(request_for(again)).id not in found  # type: ignore[union-attr]  # it has one


@pytest.mark.parametrize("peer", ["a:1\r\nX: y", "a:1,b:2", "", "a b:1"])
def test_a_peer_that_would_be_more_than_one_is_not_sent(peer: str) -> None:
    assert not sendable(Granted(ID, 1, "thing", Body(""), "", 60.0, member=Member(0, (peer,))))


def test_of_a_call_without_a_gang_nothing_is_told() -> None:
    assert cluster_of(request_for(Granted(ID, 1, "thing", Body(""), "", 60.0))) is None


def test_members_of_one_machine_have_ports_of_their_own() -> None:
    held = [Meeting() for _ in range(20)]
    assert len({each.port for each in held}) == 20
    for each in held:
        each._held.close()


def headers(rank: int = 1, peers: str = "127.0.0.1:7001,127.0.0.1:7002") -> dict[str, str]:
    return {"Swell-Request-Id": ID, "Swell-Hand-Out": str(40 + rank), "Swell-Rank": str(rank), "Swell-Peers": peers}


def lines() -> str:
    """The same where the request has an id."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers().items() if name != "Swell-Request-Id")


def ask(replica: ReplicaProcess, **arguments: Any) -> Any:
    status, _, body = replica.request("/call/thing", msgspec.json.encode(arguments), headers())
    assert status == 200, body
    replica.tell(Forget(((ID, 41),)))
    return msgspec.json.decode(body)


@pytest.mark.parametrize("fork", [False, True])
def test_its_port_is_held_until_its_code_begins_and_its_code_knows_the_others(fork: bool) -> None:
    with ReplicaProcess(SOURCE, function(), fork=fork, gang=Gang(2), single_use=True) as replica:
        port = replica.ready().port
        with socket.socket() as other, pytest.raises(OSError, match="already in use"):
            other.bind(("127.0.0.1", port))
        peers = ["127.0.0.1:7001", "127.0.0.1:7002"]
        environ = ["1", "2", "0", "127.0.0.1", "7001", peers[0]]
        assert ask(replica) == [1, f"{ID}-40", peers, ["127.0.0.1"] * 2, *environ]
        # Listening there is left to the code.
        with socket.create_server(("127.0.0.1", port)):
            assert replica.wait() == 0


def test_one_without_a_gang_holds_no_port_and_knows_of_no_others() -> None:
    with ReplicaProcess(SOURCE, function()) as replica:
        assert replica.ready().port == 0
        status, _, body = replica.request("/call/thing", b"{}")
        assert status == 500
        assert b"get_cluster_info(): only calls of functions with nodes=" in body


def test_all_attempts_of_a_call_have_one_folder(tmp_path: Path) -> None:
    with ReplicaProcess(SOURCE, function(), gang=Gang(2), single_use=True, checkpoints=str(tmp_path)) as replica:
        replica.ready()
        assert ask(replica, do="folder") == str(tmp_path / ID)
    assert (tmp_path / ID / "x").read_text() == f"{ID}-40"


@pytest.mark.parametrize("how", ["drain", "signal", "cancel"])
def test_its_code_hears_that_it_is_to_end(how: str) -> None:
    with ReplicaProcess(SOURCE, function(), gang=Gang(2), single_use=True, cancel_grace_s=60.0) as replica:
        replica.ready()
        with replica.begin("/call/thing", b'{"do": "wait"}', lines()) as sock:
            until((replica.folder / "begun").exists, "it works")
            if how == "drain":
                replica.tell(Drain("preempted", soon=True))
            elif how == "signal":
                replica.process.send_signal(signal.SIGTERM)
            else:
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(100) == b""
            if how != "cancel":
                answer = b""
                while b'"stopped"' not in answer:
                    piece = sock.recv(65536)
                    assert piece, answer
                    answer += piece
                replica.tell(Forget((("q9", 41),)))
        assert replica.wait() == 0


@pytest.mark.parametrize("soon", [False, True])
def test_a_drain_that_gives_all_the_time_there_is_stops_nothing(soon: bool) -> None:
    with (
        ReplicaProcess(SOURCE, function(), gang=Gang(2), single_use=True) as replica,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as runner,
    ):
        replica.ready()
        runner.settimeout(60)
        runner.bind(replica.runner_path)
        runner.listen()
        with replica.begin("/call/thing", b'{"do": "look"}', lines()) as sock:
            until((replica.folder / "begun").exists, "it works")
            replica.tell(Drain("superseded", soon))
            replica.channel.close()
            replica.channel, _ = runner.accept()
            here = replica.hear()
            # It has heard what it was told.
            assert isinstance(here, Reattach)
            assert here.closed == "superseded"
            (replica.folder / "look").touch()
            assert sock.recv(65536).endswith(b"true" if soon else b"false")


def test_what_code_on_the_main_thread_asked_for_is_called_as_it_is_told_to_end() -> None:
    with ReplicaProcess(SOURCE, function("handled", asynchronous=True), gang=Gang(2), single_use=True) as replica:
        replica.ready()
        with replica.begin("/call/handled", b"{}", lines()) as sock:
            until((replica.folder / "begun").exists, "it works")
            replica.tell(Drain("preempted", soon=True))
            replica.process.send_signal(signal.SIGTERM)
            answer = b""
            while b'"SIGTERM"' not in answer:
                piece = sock.recv(65536)
                assert piece, answer
                answer += piece


MODULE = """
import pathlib, signal, sys, time
import swell

def ends(*_):
    pathlib.Path("told").touch()
    sys.exit(3)

signal.signal(signal.SIGTERM, ends)

def thing():
    pathlib.Path("begun").touch()
    while not swell.stopping():
        time.sleep(0.01)
    while not pathlib.Path("over").exists():
        time.sleep(0.01)
    return pathlib.Path("told").exists()
"""


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("gang", [Gang(2), None])
def test_so_is_what_the_module_of_a_job_asked_for_and_what_it_has_goes_on_to_its_end(
    fork: bool, gang: Gang | None
) -> None:
    """Its handler calls sys.exit. That of a service, which is for where it runs by itself, is not called."""
    with ReplicaProcess(MODULE, function(), fork=fork, gang=gang, single_use=True) as replica:
        pid = replica.ready().pid
        with replica.begin("/call/thing", b"{}") as sock:
            until((replica.folder / "begun").exists, "it works")
            os.kill(pid, signal.SIGTERM)
            if gang is not None:
                until((replica.folder / "told").exists, "its handler was called")
            (replica.folder / "over").touch()
            assert sock.recv(65536).endswith(b"true" if gang is not None else b"false")
        assert replica.wait() == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_the_timeout_of_rank_0_is_that_of_all(rank: int) -> None:
    """It says how far it is, and the others need not."""
    with ReplicaProcess(
        WAITS, function(), gang=Gang(2), single_use=True, timeout_s=0.3, timeout_max_s=60.0, cancel_grace_s=0.1
    ) as replica:
        replica.ready()
        status, _, body = replica.request("/call/thing", b"{}", headers(rank))
        assert (status, b"without swell.progress()" in body) == ((504, True) if rank == 0 else (200, False))
        replica.tell(Forget(((ID, 40 + rank),)))


WAITS = """
import time

def thing():
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        time.sleep(0.01)
"""
