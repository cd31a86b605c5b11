"""Do functions get the GPUs that they ask for, on a machine that says that it has some? There is none to try it on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from private_swell import Failed, PrivateSwell, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SOURCE = """
import os, time
from pathlib import Path
import swell
app = swell.App("gpus")

def seen(gate):
    until = time.monotonic() + 60
    while gate and not Path(gate).exists() and time.monotonic() < until:
        time.sleep(0.01)
    return os.environ.get("CUDA_VISIBLE_DEVICES")

@app.function(gpu=["H100", "L4"])
def one(gate: str = "") -> str | None:
    return seen(gate)

@app.function(gpu="l4:2", nodes=1)
def both() -> str | None:
    return seen("")

@app.function()
def none() -> str | None:
    return seen("")

@app.cls(gpu="any", enable_memory_snapshot=True)
class Model:
    @swell.enter(snap=True)
    def load(self) -> None:
        self.loaded_with = seen("")

    @swell.enter()
    def move(self) -> None:
        self.moved_with = seen("")

    @swell.method()
    def told(self) -> list[str | None]:
        return [self.loaded_with, self.moved_with, seen("")]
"""


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwell]:
    """A server of a machine that says that it has two L4, and may be taken away."""
    folder = tmp_path_factory.mktemp("gpus")
    program = folder / "nvidia-smi"
    lines = "".join(f"{n}, GPU-{n}, NVIDIA L4, 23034 MiB\\n" for n in range(2))
    program.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    program.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    with private_swell(environ | {"PATH": f"{folder}:{environ['PATH']}", "SWELL_SPOT": "true"}) as swell:
        source = folder / "gpus.py"
        source.write_text(SOURCE)
        swell.run("deploy", str(source))
        yield swell


def call(swell: PrivateSwell, target: str, **arguments: object) -> object:
    with swell.connect() as client:
        return client.call(target, arguments).value


def test_each_replica_has_one_of_its_own_and_others_wait(gpus: PrivateSwell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(3) as callers:
        waiting = [callers.submit(call, gpus, "gpus/one", gate=str(gate)) for _ in range(2)]

        def with_gpus() -> list[str]:
            return sorted(id for row in gpus.serving() for id in row["gpus"])

        wait_until("two replicas with a GPU each", lambda: with_gpus() == ["GPU-0", "GPU-1"])
        assert call(gpus, "gpus/none") == ""
        third = callers.submit(call, gpus, "gpus/one", gate=str(gate))
        wait_until("the third waits", lambda: "0 free of 2 NVIDIA L4" in json.dumps(gpus.get("/api/health")))
        assert "has 1 NVIDIA L4" in gpus.run("ps")
        gate.touch()
        found = [each.result() for each in waiting]
        assert sorted(map(str, found)) == ["GPU-0", "GPU-1"]
        assert third.result() in ("GPU-0", "GPU-1")


def test_what_there_is_and_is_free_is_listed(gpus: PrivateSwell) -> None:
    (node,) = json.loads(gpus.run("node", "list", "--json"))
    assert [(gpu["id"], gpu["model"], gpu["memory_mib"]) for gpu in node["gpus"]] == [
        (f"GPU-{n}", "NVIDIA L4", 23034) for n in range(2)
    ]
    line = gpus.run("node", "list").splitlines()[1]
    assert line.startswith("local  there, spot  ")
    assert "2 NVIDIA L4" in line


def test_why_names_the_device(gpus: PrivateSwell) -> None:
    with gpus.connect() as client:
        answer = client.call("gpus/one", {})
    assert f"GPU NVIDIA L4: {answer.value}" in gpus.run("why", answer.request)


def test_a_fork_is_given_one_and_a_job_all_that_it_needs(gpus: PrivateSwell) -> None:
    """What is idle gives way."""
    loaded_with, moved_with, sees = msgspec.convert(call(gpus, "gpus/Model.told"), list[str])
    assert (loaded_with, moved_with) == ("", sees)
    assert sees in ("GPU-0", "GPU-1")
    assert "GPU-0,GPU-1" in gpus.run("job", "run", "gpus/both")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('gpu="L4:3"', "it asks for 3 GPUs of kind L4; node local has 2 NVIDIA L4"),
        ('gpu=["H100", "A100:8"]', "it asks for 1 GPU of kind H100 or 8 of kind A100; node local has 2 NVIDIA L4"),
        ('gpu="L4:0.5"', "a part of one cannot be had"),
    ],
)
def test_what_is_not_there_is_refused(gpus: PrivateSwell, tmp_path: Path, written: str, words: str) -> None:
    file = tmp_path / "other.py"
    file.write_text(f"import swell\napp = swell.App('other')\n@app.function({written})\ndef f():\n    return 1\n")
    with pytest.raises(Failed) as refused:
        gpus.run("deploy", str(file))
    assert words in " ".join(str(refused.value).split())


def test_a_sandbox_has_none(gpus: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "other.py"
    file.write_text(
        "import swell\napp = swell.App('other')\n@app.function(gpu='L4')\n@swell.isolated()\ndef f():\n    return 1\n"
    )
    with pytest.raises(Failed, match="no sandbox shows a GPU yet"):
        gpus.run("deploy", str(file))
