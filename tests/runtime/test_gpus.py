"""Does a runner find the GPUs of its machine, give each to one process at a time, and tell that process?

There is no GPU to try it on: a program by the name of `nvidia-smi` says what the real one would.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from node import Node, call, run

from swell.model.gpu import Gpu
from swell.model.replica import Phase
from swell.model.resources import Needs
from swell.runtime.runner import gpus
from swell.runtime.runner.processes import Reaper

TWO = """\
0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559 MiB
1, GPU-bbbb, NVIDIA H100 80GB HBM3, 81559 MiB
"""
H100S = tuple(Gpu(f"GPU-{letter * 4}", "NVIDIA H100 80GB HBM3", 81559) for letter in "ab")
SEES = """
import os
at_load = os.environ.get("CUDA_VISIBLE_DEVICES")
def f():
    return [at_load, os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CUDA_DEVICE_ORDER"), os.getpid()]
"""


def program(folder: Path, text: str) -> None:
    """One that is called as the driver's."""
    path = folder / gpus.PROGRAM
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def prints(folder: Path, listing: str, status: int = 0) -> None:
    (folder / "listing").write_text(listing)
    program(folder, f'[ "$*" = "{" ".join(gpus.QUERY)}" ] || exit 9\ncat {folder}/listing\nexit {status}')


def found(folder: Path | None, setting: str = "auto", **environ: str) -> tuple[Gpu, ...]:
    async def scenario() -> tuple[Gpu, ...]:
        reaper = Reaper(lambda _pid, _exit: None)
        reaper.start()
        path = f"{folder}:{os.defpath}" if folder is not None else "/nowhere"
        try:
            return await gpus.find(setting, reaper, {"PATH": path, **environ})
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    return asyncio.run(scenario())


# -- what there is -----------------------------------------------------------------------------------


def test_a_machine_has_what_its_driver_tells_of(tmp_path: Path) -> None:
    prints(tmp_path, TWO)
    assert found(tmp_path) == H100S
    assert found(None) == ()


def test_its_operator_knows_better(tmp_path: Path) -> None:
    prints(tmp_path, TWO)
    assert found(tmp_path, "none") == ()
    assert found(tmp_path, "L4:2,T4") == (Gpu("0", "L4"), Gpu("1", "L4"), Gpu("2", "T4"))


@pytest.mark.parametrize(
    ("visible", "left"), [("1", 1), ("GPU-b", 1), ("", 0), ("-1", 0), ("0,1", 2), ("GPU-aaaa, GPU-bbbb", 2), ("7", 0)]
)
def test_what_the_server_itself_may_not_use_it_does_not_give(tmp_path: Path, visible: str, left: int) -> None:
    prints(tmp_path, TWO)
    assert found(tmp_path, CUDA_VISIBLE_DEVICES=visible) == H100S[2 - left :]


@pytest.mark.parametrize(
    ("listing", "devices"),
    [
        ("", ()),
        ("No devices were found\n", ()),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", ()),
        (f"Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.\n{TWO}", H100S),
        ("3, [N/A], NVIDIA L4, [N/A]\n", (Gpu("3", "NVIDIA L4"),)),
        ("3, GPU-c, NVIDIA L4\n", (Gpu("GPU-c", "NVIDIA L4"),)),
        ("3, GPU-c, NVIDIA L4, 23034\n", (Gpu("GPU-c", "NVIDIA L4", 23034),)),
        (TWO + TWO, H100S),
        ('0, "GPU-c\n', ()),
        ("\0\n,,,\n0\n, , , \n" + TWO, H100S),
    ],
)
@pytest.mark.parametrize("status", [0, 15])
def test_whatever_it_prints_the_devices_in_it_are_found(
    tmp_path: Path, listing: str, devices: tuple[Gpu, ...], status: int
) -> None:
    prints(tmp_path, listing, status)
    assert found(tmp_path) == devices


def test_one_that_hangs_or_cannot_be_run_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "FIND_S", 0.2)
    program(tmp_path, "exec sleep 600")
    assert found(tmp_path) == ()
    (tmp_path / gpus.PROGRAM).write_text("")
    assert found(tmp_path) == ()


# -- who has it --------------------------------------------------------------------------------------

with_devices = pytest.mark.usefixtures("devices")


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them, for runners that are started here."""
    prints(tmp_path, TWO)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.slow
@with_devices
def test_each_process_sees_its_own_and_the_next_runner_knows() -> None:
    async def scenario(node: Node) -> None:
        assert node.nodes()[-1].gpus == H100S
        asked = node.revision(SEES, needs=Needs(gpu=("H100",)))
        fresh = await node.ready(node.start(asked, gpus=("GPU-bbbb",)))
        assert fresh.gpus == ("GPU-bbbb",)
        assert "GPU NVIDIA H100 80GB HBM3: GPU-bbbb" in fresh.applied
        assert (await call(fresh.address))[1][:3] == ["GPU-bbbb", "GPU-bbbb", "PCI_BUS_ID"]
        # Loaded by who has none, and given one before its own start-up code runs.
        template = await node.ready(node.start(asked, role="template"))
        fork = await node.ready(node.start(asked, template=template.replica, gpus=("GPU-aaaa",)))
        assert "fork" in dict(fork.timings_ms)
        assert (await call(fork.address))[1][:3] == ["", "GPU-aaaa", "PCI_BUS_ID"]
        none = await node.ready(node.start(node.revision(SEES)))
        assert (await call(none.address))[1][:3] == ["", "", None]
        assert (none.gpus, [words for words in none.applied if "GPU" in words]) == ((), [])
        await node.kill_runner()
        node.facts.clear()
        await node.start_runner()
        for seen in (fresh, fork):
            assert (await node.ready(seen.replica)).gpus == seen.gpus

    run(scenario)


@pytest.mark.slow
@with_devices
def test_who_was_given_what_another_has_is_started_once_that_is_over() -> None:
    async def scenario(node: Node) -> None:
        asked = node.revision(SEES, needs=Needs(gpu=("H100",)))
        first = await node.ready(node.start(asked, gpus=("GPU-aaaa",)))
        second, third, other = (node.start(asked, gpus=(gpu,)) for gpu in ("GPU-aaaa", "GPU-aaaa", "GPU-bbbb"))
        await node.ready(other)
        assert [seen.phase for seen in node.seen(second)][:1] == [Phase.STARTING]
        assert all(seen.pid is None for id in (second, third) for seen in node.seen(id))
        # One that never had its turn is in nobody's way.
        node.stop(second)
        assert (await node.gone(second)).reason == "idle"
        node.stop(first.replica)
        assert (await call((await node.ready(third)).address))[1][0] == "GPU-aaaa"
        ends = [at for at, fact in enumerate(node.facts) if fact in node.seen(first.replica)[-1:]]
        begins = [at for at, fact in enumerate(node.facts) if fact in [s for s in node.seen(third) if s.pid][:1]]
        assert ends
        assert not begins or ends[0] < begins[0]
        assert any(f"waits for a GPU that {first.replica} was given" in line["text"] for line in node.log())

    run(scenario)


@pytest.mark.slow
@with_devices
def test_a_driver_that_takes_long_holds_up_nobody_and_is_heard_in_the_end(tmp_path: Path) -> None:
    program(tmp_path, f"while ! [ -e {tmp_path}/gate ]; do sleep 0.05; done\ncat {tmp_path}/listing")

    async def scenario(node: Node) -> None:
        assert [each.gpus for each in node.nodes()] == [()]
        seen = await node.ready(node.start(node.revision(SEES)))
        assert (await call(seen.address))[1][:2] == ["", ""]
        (tmp_path / "gate").touch()
        await node.until(lambda: node.nodes()[-1].gpus == H100S)

    run(scenario, "--gpus-wait-s", "0.2")


@pytest.mark.slow
def test_a_machine_without_any_says_nothing_of_them_to_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    async def scenario(node: Node) -> None:
        seen = await node.ready(node.start(node.revision(SEES)))
        assert (await call(seen.address))[1][:3] == [None, None, None]

    run(scenario, gpus="none")


@pytest.mark.slow
@with_devices
def test_what_its_author_sets_holds_unless_it_was_given_some() -> None:
    async def scenario(node: Node) -> None:
        for needs, given, expected in ((Needs(), (), "7"), (Needs(gpu=("any",)), ("GPU-aaaa",), "GPU-aaaa")):
            revision = node.revision(SEES, needs=needs, variables=(("CUDA_VISIBLE_DEVICES", "7"),))
            seen = await node.ready(node.start(revision, gpus=given))
            assert (await call(seen.address))[1][0] == expected

    run(scenario)
