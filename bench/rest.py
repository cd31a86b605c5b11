"""What does it cost to have a thousand services that nobody calls?

Each is called once, so that everything that is ever made for a service has been made; then all are at zero.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from bench.kernel import cpu_s, memory_mib
from bench.row import Options, Row, row
from private_swell import SERVERS, PrivateSwell, private_swell, wait_until

PER_APP = 50
AT_ONCE = 4
SETTLE_S = 5


def run(options: Options) -> list[Row]:
    """Memory and CPU of our own processes, before any service and with all of them at rest."""
    services = options.rounds(1000, 100)
    slices, seconds = options.rounds(3, 2), options.rounds(20, 3)
    with private_swell(template_idle_s=1) as here:
        empty = _memory(here)
        deploy_s = _deploy(here, services)
        call_s = _call(here, services)
        wait_until("all at zero", lambda: not here.replicas(), pause_s=1)
        time.sleep(SETTLE_S)
        used = [_slice_s(here, seconds) for _ in range(slices)]
        full = _memory(here)
    note = f"{empty['control']:.0f}, {empty['gateway']:.0f}, {empty['runner']:.0f} MiB with none"
    rows = [row("rest", f"deploying {services} services, {PER_APP} to an app", "s", [deploy_s])]
    rows.append(row("rest", f"calling each once, {AT_ONCE} at a time", "s", [call_s]))
    for name in SERVERS:
        rows.append(row("rest", f"{services} at zero: {name}, resident", "MiB", [full[name]], note=note))
        note = ""
    each = f"slices of {seconds} s"
    for name in SERVERS:
        ms_per_s = [one[name] / seconds * 1000 for one in used]
        rows.append(row("rest", f"{services} at zero: {name}, CPU", "ms/s", ms_per_s, note=each))
    return rows


def _slice_s(here: PrivateSwell, seconds: int) -> dict[str, float]:
    """CPU seconds of each process of ours while nobody calls."""
    pids = {name: here.server(name) for name in SERVERS}
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    return {name: cpu_s(pid) - before[name] for name, pid in pids.items()}


def _memory(here: PrivateSwell) -> dict[str, float]:
    return {name: memory_mib(here.server(name))["rss"] for name in SERVERS}


def _deploy(here: PrivateSwell, services: int) -> float:
    begun = time.monotonic()
    for number in range(services // PER_APP):
        file = here.scratch / f"rest{number}.py"
        file.write_text(_source(f"bench-rest{number}", PER_APP))
        here.run("deploy", str(file), wait_s=600)
    return time.monotonic() - begun


def _call(here: PrivateSwell, services: int) -> float:
    def call(number: int) -> None:
        app, function = divmod(number, PER_APP)
        with here.connect() as client:
            answer = client.call(f"bench-rest{app}/f{function}")
        if answer.value != function:
            raise AssertionError(f"f{function} answered {answer.body!r}")

    begun = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(call, range(services)))
    return time.monotonic() - begun


def _source(app: str, functions: int) -> str:
    """Python source of an app whose functions `f0`, `f1`, … answer their own number."""
    parts = [f'"""One of many."""\n\nimport swell\n\napp = swell.App({app!r})\n']
    parts += [f"\n\n@app.function(scaledown_window=2)\ndef f{n}() -> int:\n    return {n}\n" for n in range(functions)]
    return "".join(parts)
