"""Is what a pool used the same as what the kernel accounted, and do requests cost what the formula says?"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from journey.callers import APPS, call, command, why
from private_swell import PrivateSwell, private_swell, wait_until
from swell.model.request import Prices

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BURN_S = 2.0
"""CPU seconds of the replica itself, and again of a process it starts."""
SHARE = 0.05
"""The measured and the accounted may differ by this share."""
MEMORY_MIB = 512


@pytest.fixture(params=["true", "false"], ids=["templates", "fresh"])
def burning(request: pytest.FixtureRequest) -> Iterator[PrivateSwell]:
    with private_swell(templates=request.param, template_idle_s=60) as swell:
        swell.run("deploy", str(APPS / "burning.py"))
        yield swell


def usage(swell: PrivateSwell) -> dict[str, Any]:
    """The only pool's row; empty before there is one."""
    rows = json.loads(command(swell, "usage", "--by", "pool", "--json").out)
    found: list[dict[str, Any]] = [row for row in rows if "/burn@" in row["pool"]]
    return found[0] if found else {}


def template_cpu_s(swell: PrivateSwell) -> float:
    """What the kernel accounted to the pool's templates."""
    ticks = os.sysconf("SC_CLK_TCK")
    spent = 0.0
    for one in swell.replicas():
        if one["role"] == "template":
            fields = Path(f"/proc/{one['pid']}/stat").read_text().rpartition(")")[2].split()
            spent += (int(fields[11]) + int(fields[12])) / ticks
    return spent


def test_cpu_time_is_what_the_kernel_accounted(burning: PrivateSwell) -> None:
    reply = call(burning, "burning/burn", {"seconds": BURN_S})
    assert reply.status == 200, reply.body
    accounted_s = call(burning, "burning/burn", {"seconds": 0}).value + template_cpu_s(burning)
    assert accounted_s > 2 * BURN_S
    # The last of it is known once the replica is gone.
    wait_until("the replica is gone", lambda: not burning.serving(), wait_s=60)
    wait_until("its usage is there", lambda: usage(burning).get("cpu_s", 0) >= accounted_s * (1 - SHARE), wait_s=120)
    time.sleep(2)
    assert usage(burning)["cpu_s"] == pytest.approx(accounted_s, rel=SHARE)


def test_idle_start_up_and_template_time_appear(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(APPS / "burning.py"))
    reply = call(own_swell, "burning/burn", {"seconds": 0.2})
    wait_until("the replica is gone", lambda: not own_swell.serving(), wait_s=60)
    wait_until("it is all there", lambda: usage(own_swell).get("replica_s", 0) > 2, wait_s=120)
    row = usage(own_swell)
    assert (row["requests"], row["errors"], row["cold"]) == (1, 0, 1)
    assert 0 < row["starting_s"] < row["replica_s"]
    assert 0.2 < row["busy_s"] < row["replica_s"] - row["starting_s"]
    assert row["template_s"] > row["replica_s"]
    assert row["memory_gib_s"] > 0
    record = why(own_swell, reply.request)
    assert record["cold"] is True
    # It was the only request: it pays for the whole start, and for the two seconds nobody asked.
    assert record["idle_share_usd"] > 0
    assert record["cold_share_usd"] > 0
    total = record["marginal_usd"] + record["idle_share_usd"] + record["cold_share_usd"]
    assert 0 < total < 10 * row["cost_usd"]


def test_marginal_cost_is_the_formula(own_swell: PrivateSwell) -> None:
    """CPU time and the replica's memory while the input ran, at the listed prices."""
    own_swell.run("deploy", str(APPS / "burning.py"))
    reply = call(own_swell, "burning/burn", {"seconds": 0.3})
    record = why(own_swell, reply.request)
    (run_ms,) = (step["ms"] for step in record["steps"] if step["what"] == "run")
    prices = Prices()
    cpu_usd = record["cpu_us"] / 1e6 * prices.cpu_core_hour_usd / 3600
    memory_usd = run_ms / 1e3 * MEMORY_MIB / 1024 * prices.memory_gib_hour_usd / 3600
    assert float(reply.headers["swell-cost-usd"]) == pytest.approx(cpu_usd + memory_usd, rel=1e-3)
    assert record["marginal_usd"] == pytest.approx(cpu_usd + memory_usd, rel=1e-6)
    assert record["cpu_us"] >= 0.3e6


def test_what_is_stopped_at_its_deadline_costs_what_it_used(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(APPS / "endless.py"))
    reply = call(own_swell, "endless/loop", {"file": "/dev/null"}, swell_timeout="60")
    assert (reply.status, reply.error["code"]) == (504, "deadline")
    record = why(own_swell, reply.request)
    # It has two seconds, and a busy machine gives it less of them.
    assert record["cpu_us"] > 0.1e6
    assert float(reply.headers["swell-cost-usd"]) == pytest.approx(record["marginal_usd"], rel=1e-3)
    assert record["marginal_usd"] > record["cpu_us"] / 1e6 * Prices().cpu_core_hour_usd / 3600


def test_phases_are_finer_than_a_millisecond(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(APPS / "burning.py"))
    with own_swell.connect() as client:
        client.call("burning/burn", {"seconds": 0})
        phases = [client.call("burning/burn", {"seconds": 0}).phases_ms for _ in range(20)]
    for name in ("run", "total"):
        assert any(one[name] % 1 for one in phases), name
    for one in phases:
        assert one["held"] + one["connect"] + one["run"] <= one["total"] + 0.05
