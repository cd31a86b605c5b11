"""Do prices of one's own reach each answer and the sum, and is what is no price refused before anything is up?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from shell import refusal

from journey.callers import APPS, call, command, why
from private_swell import PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CPU_S_USD, GIB_S_USD = 1.0, 10.0
MEMORY_GIB = 0.5
"""What the function asks for."""


def test_prices_from_a_file_reach_each_answer_and_the_sum(idle: PrivateSwell) -> None:
    names = {"cpu_core": CPU_S_USD, "memory_gib": GIB_S_USD, "template_memory_gib": GIB_S_USD}
    lines = [f"{name}_hour_usd = {price * 3600:g}\n" for name, price in names.items()]
    (idle.home / "prices.toml").write_text("".join(lines))
    idle.run("up", "-d")
    idle.run("deploy", str(APPS / "burning.py"))
    reply = call(idle, "burning/burn", {"seconds": 0.3})
    record = why(idle, reply.request)
    (run_ms,) = (step["ms"] for step in record["steps"] if step["what"] == "run")
    usd = record["cpu_us"] / 1e6 * CPU_S_USD + run_ms / 1e3 * MEMORY_GIB * GIB_S_USD
    assert float(reply.headers["swell-cost-usd"]) == pytest.approx(usd, rel=1e-3)
    wait_until("its usage is there", lambda: any(row["cpu_s"] > 0.3 and row["template_s"] for row in usage(idle)))
    (row,) = usage(idle)
    assert row["cost_usd"] == pytest.approx(row["cpu_s"] * CPU_S_USD + row["memory_gib_s"] * GIB_S_USD)


def usage(swell: PrivateSwell) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(command(swell, "usage", "--json").out)
    return rows


def test_what_is_no_price_is_refused_before_anything_is_up(idle: PrivateSwell) -> None:
    path = idle.home / "prices.toml"
    path.write_text("cpu_core_hour = 1\n")
    words = f"{path}: there is no price called 'cpu_core_hour'. Did you mean cpu_core_hour_usd?"
    assert refusal(idle, "up", "-d").startswith(f"Error: {words}")
    assert not (idle.home / "logs").exists()
    # Whatever else starts a server hears the same, from the first of its processes.
    assert words in refusal(idle, "run", str(APPS / "burning.py"), "--seconds", "0")
    assert not (idle.home / "key").exists()
    assert idle.processes() == []
