"""What does a replica do at its end whose input cannot be stopped? Exit hooks, and programs that it started."""

from __future__ import annotations

import msgspec
import pytest
from replica_harness import cls, function, ready_replica, until
from test_replica_cancel import BLOCKING, BLOCKING_ENTRY, ENTRY, SOURCE, run_and_leave

from swell.model.workload import Web
from swell.wire.child import Drain, Left, Mount, Stuck

pytestmark = pytest.mark.slow

LEAVING = """

        def spoils(self):
            raise SystemExit("no such day")

        async def says_goodbye(self):
            await asyncio.sleep(0.01)
            print("goodbye")

        def commits(self):
            print("committed")
"""
HOOKS = ("spoils", "says_goodbye", "commits")


@pytest.mark.parametrize("method", ["sleep", "deaf"])
def test_exit_hooks_run_beside_what_cannot_be_stopped(method: str) -> None:
    entry = msgspec.structs.replace(ENTRY, exit=HOOKS)
    with ready_replica(SOURCE + LEAVING, entry, cancel_grace_s=0.2) as replica:
        run_and_leave(replica, method, b"[60]")
        assert replica.hear() == Stuck(requests=("q9",), ending=True)
        # Told to end as well, it does so once.
        replica.tell(Drain("idle"))
        assert replica.wait() == 75
        assert [len(replica.printed(words)) for words in ("spoils raised", "goodbye", "committed")] == [1, 1, 1]


PROGRAM = "trap {} TERM; touch begun; while :; do sleep 0.05; done"


@pytest.mark.parametrize(("trap", "told"), [("'touch told; exit'", True), ("''", False)], ids=["ends", "is deaf"])
def test_programs_that_the_input_waits_for_are_told_to_end_before_they_are_killed(trap: str, told: bool) -> None:
    source = f"""
        import subprocess
        class Thing:
            def runs(self):
                try:
                    subprocess.run(["sh", "-c", {PROGRAM.format(trap)!r}])
                finally:
                    print("tidied up")
    """
    with ready_replica(source, cls("runs"), cancel_grace_s=0.2) as replica:
        sock = replica.begin("/call/runs")
        until(lambda: (replica.folder / "begun").exists(), "the program runs")
        sock.close()
        assert replica.hear() == Stuck(requests=("q9",), ending=True)
        assert replica.wait() == 75
        assert (replica.folder / "told").exists() is told
        assert len(replica.printed("tidied up")) == 1


@pytest.mark.parametrize("method", ["sleep", "deaf"])
def test_what_ends_while_its_replica_leaves_changes_nothing(method: str) -> None:
    source = SOURCE + LEAVING.replace('print("committed")', 'time.sleep(4.0); print("committed")')
    with ready_replica(source, msgspec.structs.replace(ENTRY, exit=HOOKS), cancel_grace_s=0.2) as replica:
        run_and_leave(replica, method, b"[2.5]")
        assert replica.hear() == Stuck(requests=("q9",), ending=True)
        replica.tell(Drain("idle"))
        assert replica.wait() == 75
        assert [len(replica.printed(words)) for words in ("spoils raised", "goodbye", "committed")] == [1, 1, 1]


@pytest.mark.parametrize("method", ["sleep", "deaf"])
def test_one_that_drains_ends_beside_what_cannot_be_stopped_once_the_others_have(method: str) -> None:
    entry = msgspec.structs.replace(ENTRY, exit=HOOKS)
    with ready_replica(SOURCE + LEAVING, entry, cancel_grace_s=0.2, max_inputs=2) as replica:
        run_and_leave(replica, method, b"[60]")
        assert replica.hear() == Stuck(requests=("q9",), ending=False)
        begun = (replica.folder / "counter").stat().st_size
        other = replica.begin("/call/sleep", b"[1.0]")
        until(lambda: (replica.folder / "counter").stat().st_size > begun, "the other runs")
        replica.tell(Drain("stuck"))
        assert other.recv(65536).startswith(b"HTTP/1.1 200")
        assert replica.hear() == Stuck(requests=("q9",), ending=True)
        assert replica.wait() == 75
        assert [len(replica.printed(words)) for words in ("spoils raised", "goodbye", "committed")] == [1, 1, 1]
        other.close()


MOUNT = Mount("default", "data", "v-1", 1, "/data", "/nowhere", "/nowhere")


@pytest.mark.parametrize("max_inputs", [1, 2])
def test_what_ends_beside_what_cannot_be_stopped_does_not_end_in_order(max_inputs: int) -> None:
    """What it wrote to volumes is committed where it does: of what that input writes it may be half a file."""
    with ready_replica(SOURCE, ENTRY, cancel_grace_s=0.2, max_inputs=max_inputs, mounts=(MOUNT,)) as replica:
        run_and_leave(replica, "sleep", b"[60]")
        assert replica.hear() == Stuck(requests=("q9",), ending=max_inputs == 1)
        if max_inputs > 1:
            replica.tell(Drain("idle"))
            assert replica.hear() == Stuck(requests=("q9",), ending=True)
        assert replica.wait() == 75
        assert replica.hear() is None


def test_what_has_nothing_left_to_do_ends_in_order() -> None:
    with ready_replica(SOURCE, ENTRY, mounts=(MOUNT,)) as replica:
        replica.tell(Drain("idle"))
        assert replica.hear() == Left()
        assert replica.wait() == 0


WAITS_FOR_ITS_REQUESTS = """
    import asyncio

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            print("shutting down")
            await asyncio.sleep(3600)
        open("begun", "w").close()
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    def thing():
        return app
"""


def test_the_runner_knows_that_it_leaves_before_an_app_shuts_down_that_waits_for_its_requests() -> None:
    """By that it bounds how long all of it may take."""
    entry = function(web=Web("asgi", "label"))
    with ready_replica(WAITS_FOR_ITS_REQUESTS, entry, cancel_grace_s=0.2, max_inputs=2) as replica:
        sock = replica.begin("/", headers="Swell-Web: thing\r\n", method="GET")
        until(lambda: (replica.folder / "begun").exists(), "the request runs")
        sock.close()
        assert replica.hear() == Stuck(requests=("q9",), ending=False)
        replica.tell(Drain("idle"))
        assert replica.hear() == Stuck(requests=("q9",), ending=True)
        until(lambda: replica.printed("shutting down"), "the app is told")
        assert replica.process.poll() is None


def test_exit_hooks_run_beside_a_blocked_loop() -> None:
    entry = msgspec.structs.replace(BLOCKING_ENTRY, exit=HOOKS)
    with ready_replica(BLOCKING + LEAVING, entry, cancel_grace_s=0.2) as replica:
        run_and_leave(replica, "naps", b"[60]")
        assert replica.hear() == Stuck(requests=("q9",), ending=True)
        assert replica.wait() == 75
        assert len(replica.printed("committed")) == len(replica.printed("says_goodbye was not run at exit")) == 1
