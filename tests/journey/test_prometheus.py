"""Does a real Prometheus read what a server tells, and does it then know what happened?

The configuration and the queries are those of docs/operations.md, with this server's address and key.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import prometheus
import pytest
from prometheus import Prometheus, complaints

from private_swell import PrivateSwell, private_swell, wait_until
from series import Series, read
from swell.model.metrics import METRICS, PHASES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OPERATIONS = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
SECTION = OPERATIONS.partition("\n## Metrics\n")[2].partition("\n## ")[0]
APP = """
import os

import swell

app = swell.App("shop")


@app.cls(scaledown_window=2)
class Model:
    @swell.enter(snap=True)
    def load(self):
        self.weights = b"x" * 10_000_000

    @swell.method()
    def pay(self, euros: int):
        if euros < 0:
            raise ValueError("nobody pays less than nothing")
        return len(self.weights) + euros


@app.function(scaledown_window=2)
def broken():
    os._exit(3)


@app.function(trigger=swell.Files(os.path.dirname(os.path.abspath(__file__)), "none"))
def arrived(event: swell.Event):
    pass
"""

STARTED = ("process_start_time_seconds", frozenset({("process", "control")}))


@pytest.fixture(scope="module", autouse=True)
def tidy() -> Iterator[None]:
    yield
    prometheus.remove_unpacked()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwell]:
    file = tmp_path_factory.mktemp("shop") / "shop.py"
    file.write_text(APP)
    with private_swell(template_idle_s=600) as swell:
        swell.run("deploy", str(file))
        yield swell


def scrape(swell: PrivateSwell) -> Series:
    with swell.connect() as client:
        return read(client.get("/metrics").body.decode())


def configuration(swell: PrivateSwell) -> str:
    """The example of the documentation, scraping once a second."""
    found = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    assert found is not None
    example = found[1].replace("127.0.0.1:8470", f"127.0.0.1:{swell.port}")
    return "global: {scrape_interval: 1s}\n" + example.replace("/path/to/state/key", str(swell.home / "key"))


def answers(swell: PrivateSwell, target: str, arguments: object, **headers: str) -> int:
    """The status of a call."""
    connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=120)
    headers = {"Content-Type": "application/json", **headers}
    connection.request("POST", f"/call/{target}", json.dumps(arguments), headers)
    status = connection.getresponse().status
    connection.close()
    return status


def at_zero(swell: PrivateSwell) -> bool:
    return not swell.serving()


def test_a_prometheus_knows_what_happened(shop: PrivateSwell) -> None:
    with prometheus.running(configuration(shop)) as scraper:
        wait_until("it is scraped", lambda: [t["health"] for t in scraper.targets()] == ["up"], wait_s=60)
        asked = 12
        for number in range(asked):
            assert answers(shop, "shop/Model.pay", {"euros": number}) == 200
        for _ in range(3):
            assert answers(shop, "shop/Model.pay", {"euros": -1}) == 500
        assert answers(shop, "shop/broken", {}) == 502
        assert answers(shop, "shop/none", {}) == 404

        by_code = "sum by (app, function, code, error) (swell_requests_total)"
        expected = {
            ("Model", "200", ""): asked,
            ("Model", "500", "exception"): 3,
            ("broken", "502", "replica_died"): 1,
        }

        def counted() -> bool:
            found = scraper.ask(by_code)
            return {(one["function"], one["code"], one.get("error", "")): value for one, value in found} == expected

        wait_until("all requests are counted", counted, wait_s=60)
        wait_until(
            "the door's are", lambda: scraper.number("sum(swell_requests_refused_total{code='404'})") == 1, wait_s=30
        )
        assert scraper.number("sum(swell_request_duration_seconds_count{function='Model'})") == asked + 3
        check_start_ups(scraper)
        check_the_rest(scraper)
        check_over_zero(shop, scraper, asked + 3)


def check_start_ups(scraper: Prometheus) -> None:
    """Each start was one, and its phases are told."""
    ready = 'swell_replica_starts_total{outcome="ready",function="Model",role="serving",start="fork"}'
    wait_until("the start is counted", lambda: scraper.number(ready) == 1, wait_s=120)
    query = "sum by (phase) (swell_cold_start_seconds_count{role='serving', start='fork'})"
    phases = {one["phase"] for one, value in scraper.ask(query) if value}
    assert {"order", "hand_over", "fork", "enter", "listen"} <= phases
    assert {phase.removeprefix("template_") for phase in phases} <= PHASES
    within = "histogram_quantile(1, sum by (le) (swell_replica_start_seconds_bucket{function='Model'}))"
    assert 0 < scraper.number(within) < 300
    assert scraper.number("sum(swell_cold_requests_total{function='Model'})") == 1
    died = "swell_replica_ends_total{function='broken', reason='crashed'}"
    wait_until("the crash is counted", lambda: scraper.number(f"sum({died})") >= 1, wait_s=60)


def check_the_rest(scraper: Prometheus) -> None:
    """The queries of the documentation can be asked, and every process told something."""
    queries = re.findall(r"^  (\S.*)$", SECTION, re.MULTILINE)
    queries = [query for query in queries if "swell_" in query]
    assert len(queries) == 3
    for query in queries:
        # Of so few seconds a rate may be nothing yet; that it is understood shows all the same.
        scraper.ask(query.replace("[5m]", "[1m]"))
    assert {one["process"] for one, value in scraper.ask("swell_up == 1")} == {"gateway", "control", "runner"}
    assert len(scraper.ask("process_resident_memory_bytes > 1e6")) == 3
    assert scraper.number("swell_replica_memory_bytes{function='Model', role='template'}") > 10e6
    wait_until("its use was measured", lambda: scraper.number("sum(swell_cost_usd_total)") > 0, wait_s=60)
    assert scraper.number("swell_store_write_seconds_count") > 0
    assert scraper.number("swell_control_step_seconds_count") > 0
    # Every metric it knows has the help that is declared.
    told = scraper.get("metadata")
    declared = {metric.name: (metric.kind, metric.help) for metric in METRICS}
    assert {name: (one[0]["type"], one[0]["help"]) for name, one in told.items()}.items() <= declared.items()


def check_over_zero(shop: PrivateSwell, scraper: Prometheus, so_far: int) -> None:
    """To zero and back: gauges follow, and no counter goes back."""
    wait_until("it fell to zero", lambda: at_zero(shop), wait_s=120)
    ready = "swell_replicas{function='Model', role='serving', phase='ready'}"
    wait_until("that is told", lambda: scraper.number(ready) == 0, wait_s=60)
    assert answers(shop, "shop/Model.pay", {"euros": 1}) == 200
    wait_until(
        "the next is added", lambda: scraper.number("sum(swell_requests_total{app='shop'})") == so_far + 2, wait_s=60
    )
    assert scraper.ask("resets(swell_requests_total[10m]) > 0") == []
    assert scraper.ask("resets(swell_idle_seconds_total[10m]) > 0") == []


def test_promtool_has_nothing_against_it(shop: PrivateSwell) -> None:
    assert answers(shop, "shop/Model.pay", {"euros": 1}) == 200
    with shop.connect() as client:
        text = client.get("/metrics").body
    assert complaints(text) == ""
    assert complaints(b"swell_madeUp_ms 1\n") != ""


def test_what_is_told_is_what_is_declared(shop: PrivateSwell) -> None:
    assert answers(shop, "shop/Model.pay", {"euros": 1}) == 200
    assert answers(shop, "shop/none", {}) == 404
    assert answers(shop, "shop/Model.pay", {"euros": 1}, **{"Swell-Async": "true"}) == 202
    for late in ("swell_replica_ends_total", "swell_queued_calls_total", "swell_source_messages_waiting"):
        wait_until(late, lambda late=late: late in {name for name, _ in scrape(shop)}, wait_s=60)
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in scrape(shop)}
    assert told == {metric.name for metric in METRICS}


def test_a_control_that_is_away_and_a_runner_that_hangs_are_told_as_such(shop: PrivateSwell) -> None:
    def up() -> dict[str, float]:
        return {dict(labels)["process"]: value for (name, labels), value in scrape(shop).items() if name == "swell_up"}

    assert up() == {"gateway": 1, "control": 1, "runner": 1}
    for name in ("runner", "control"):
        pid = shop.server(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            found = up()
            assert found["gateway"] == 1
            assert found[name] == 0
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until("all answer again", lambda: up() == {"gateway": 1, "control": 1, "runner": 1}, wait_s=60)
    before = scrape(shop)
    os.kill(shop.server("control"), signal.SIGKILL)

    def is_another() -> bool:
        return scrape(shop).get(STARTED, 0) > before[STARTED]

    wait_until("there is another", is_another, wait_s=60)
    wait_until("all answer", lambda: up() == {"gateway": 1, "control": 1, "runner": 1}, wait_s=60)
    after = scrape(shop)
    kept = {key: value for key, value in before.items() if key[0] == "swell_requests_total"}
    assert kept
    assert {key: after[key] for key in kept} == kept
