"""Is what a function is called for deployed as it is written, and what cannot be refused where it is written?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import swell
from sdk import deployable
from sdk.test_arguments import FIELD, described, differences
from swell.model import source as sources
from swell.model.secret import SecretUse
from swell.model.subscription import DELIVER, HttpEvents, OwnSource, Subscription
from swell.sdk import arguments

SECRET = swell.Secret.from_name("broker", required_keys=["PASSWORD"])
WHOLE: dict[str, dict[str, Any]] = {
    "HttpEvents": {"id_header": "X-Id"},
    "Files": {"folder": "/data"},
    "NatsStream": {"url": "nats://broker:4222", "stream": "ORDERS", "consumer": "shop"},
    "Objects": {
        "url": "s3://inbox/in/",
        "access_key_id": "AK",
        "secret": swell.Secret.from_name("store", required_keys=["PASSWORD"]),
    },
    "RedisStream": {"url": "redis://broker/0", "stream": "orders", "group": "shop"},
    "Rows": {"url": "postgresql://shop@db/shop", "query": "SELECT id FROM orders", "watermark": "id"},
}
OTHER: dict[str, dict[str, Any]] = {
    "HttpEvents": {
        "secret": SECRET,
        "header": "X-Sign",
        "id_header": "X-Other",
        "type_header": "X-Type",
        "replay_s": 300.0,
    },
    "Files": {"folder": "/other", "patterns": ["*.csv", "*.json"], "settle_s": 9, "rescan_s": 9.5},
    "NatsStream": {
        "url": "tls://b",
        "stream": "S",
        "consumer": "c",
        "subject": "orders.*",
        "since": "new",
        "ack_wait_s": 9,
        "content_type": "application/json",
        "secret": SECRET,
    },
    "Objects": {
        "url": "s3://other",
        "suffix": ".csv",
        "since": "new",
        "every_s": 9,
        "late_s": 9,
        "endpoint_url": "http://store:9000",
        "region": "eu-central-1",
        "access_key_id": "OTHER",
        "secret": SECRET,
    },
    "RedisStream": {
        "url": "rediss://b",
        "stream": "S",
        "group": "g",
        "consumer": "c",
        "field": "f",
        "since": "new",
        "claim_s": 9,
        "content_type": "text/plain",
        "secret": SECRET,
    },
    "Rows": {
        "url": "postgres://b/d",
        "query": "SELECT 1",
        "watermark": "w",
        "key": "k",
        "every_s": 9,
        "channel": "c",
        "settle_s": 9,
        "secret": SECRET,
    },
}
NEEDED: dict[str, dict[str, Any]] = {"replay_s": {"secret": SECRET}}
"""What goes with an argument."""


def deployed(trigger: Any, function: Any = None, **given: Any) -> Any:
    app = swell.App("a")
    app.function(trigger=trigger, **given)(function or on_event)
    return described(app).workloads[0]


def on_event(event: swell.Event, times: int = 1) -> str:
    return event.id * times


on_event.__module__ = deployable.__name__


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        pytest.param(name, argument, marks=pytest.mark.shows(name, argument))
        for name, others in OTHER.items()
        for argument in others
    ],
)
def test_each_argument_counts(name: str, argument: str) -> None:
    kind = getattr(swell, name)
    given = WHOLE[name] | NEEDED.get(argument, {})
    before = deployed(kind(**given))
    after = deployed(kind(**{**given, argument: OTHER[name][argument]}))
    words = arguments.EFFECTS[name][argument]
    assert before != after
    assert {*differences(before.subscription, after.subscription)} <= {*FIELD.findall(words)}


@pytest.mark.shows("App.function", "trigger")
def test_what_is_written_is_what_is_deployed_and_shown() -> None:
    trigger = swell.HttpEvents(secret=SECRET, header="X-Sign")
    found = deployed(trigger)
    assert found.subscription.source == HttpEvents("x-sign")
    assert found.subscription.secret == SecretUse("default", "broker", ("PASSWORD",))
    assert repr(trigger) == "HttpEvents(header='x-sign', secret=swell.Secret.from_name('broker'))"
    assert deployed(swell.Files("/data", "*.csv")).subscription.source == sources.Files("/data", ("*.csv",))
    assert repr(swell.Files("/data")) == "Files(folder='/data')"
    # A schedule is a trigger, too.
    timed = deployed(swell.Period(hours=1), deployable.plain)
    assert (timed.subscription, timed.schedule) == (None, swell.Period(hours=1).schedule)
    assert deployed(None).subscription is None


@pytest.mark.shows("App.function", "trigger")
def test_a_class_that_finds_events_is_named() -> None:
    app = swell.App("a")
    found = app.cls()(deployable.Found)
    app.function(trigger=found)(on_event)
    function = next(each for each in described(app).workloads if each.name == "on_event")
    assert function.subscription == Subscription(OwnSource("Found"))
    (entry,) = [each.entry for each in described(app).revisions if each.entry.kind == "cls"]
    assert [each.name for each in entry.methods] == [DELIVER]


def found_by(kind: type, **options: Any) -> Any:
    found = swell.App("a").cls()(kind)
    return deployed(found.with_options(**options) if options else found)


def nothing() -> None: ...


def untyped(event): ...  # type: ignore[no-untyped-def]


def greedy(event: swell.Event, more: str) -> None: ...


def streams(event: swell.Event) -> Iterator[int]:
    yield 1


for _each in (nothing, untyped, greedy, streams):
    _each.__module__ = deployable.__name__


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: found_by(deployable.Model), "Model finds no events: give a swell.Source of this app"),
        (lambda: deployed(swell.Cls.from_name("a", "Found")), "Found finds no events: give a swell.Source of this app"),
        (lambda: found_by(swell.Source), "Source finds no events: write async def events"),
        (lambda: found_by(deployable.Sync), r"Sync.ack is async def ack\(self, event\)"),
        (lambda: found_by(deployable.Given), "without parameters and other options"),
        (lambda: found_by(deployable.Found, cpu=2), "without parameters and other options"),
        (lambda: deployed("orders"), r"trigger='orders'\): give swell.HttpEvents\(\)"),
        (lambda: deployed(swell.HttpEvents(), schedule=swell.Period(hours=1)), "a function has one, and schedule="),
        (lambda: deployed(swell.HttpEvents(), nothing), r"nothing takes no argument: .*\(event: swell.Event\)"),
        (lambda: deployed(swell.HttpEvents(), untyped), r"write untyped\(event: swell.Event\)"),
        (lambda: deployed(swell.HttpEvents(), greedy), "greedy is given the event alone, and needs more"),
        (lambda: deployed(swell.HttpEvents(), streams), "streams is a generator"),
        (lambda: deployed(swell.Period(hours=1)), "needs event, and a schedule gives no arguments"),
        (lambda: swell.HttpEvents(header="a b"), r"HttpEvents\(…\): header cannot be 'a b'"),
        (lambda: swell.HttpEvents(type_header="x"), "give id_header as well"),
        (lambda: swell.HttpEvents(replay_s=60), "give a secret as well"),
        (lambda: swell.HttpEvents(secret=SECRET, replay_s=-1), "replay_s is a number of seconds, not -1"),
        (lambda: swell.HttpEvents(id_header="a:b"), "id_header cannot be 'a:b'"),
        (lambda: swell.HttpEvents(header="Authorization"), "header cannot be authorization, which the gateway reads"),
        (lambda: swell.HttpEvents(id_header="Swell-Id"), "id_header cannot be swell-id"),
        (lambda: swell.HttpEvents(header=7), r"HttpEvents\(header=…\): expected `str`"),
        (lambda: swell.HttpEvents(secret="x"), r"HttpEvents\(secret=…\): give swell.Secret.from_name"),
        (lambda: swell.HttpEvents(secret=swell.Secret.from_dict({"A": "b"})), r"give swell.Secret.from_name"),
        (
            lambda: swell.HttpEvents(secret=swell.Secret.from_name("x", required_keys=["A", "B"])),
            "one variable is used: required_keys names 2",
        ),
        (lambda: swell.Files("inbox"), "folder is an absolute path"),
        (lambda: swell.Files("/data", [7]), r"Files\(patterns\[0\]=…\): expected `str`"),
        (lambda: swell.NatsStream("http://x", "S", consumer="c"), "The url begins with nats://"),
        (lambda: swell.NatsStream("nats://u:p@x", "S", consumer="c"), "has a password in it"),
        (lambda: swell.NatsStream("nats://x", "S", consumer="c", since="now"), r"NatsStream\(since=…\): invalid enum"),
        (lambda: swell.Objects("s3://inbox", access_key_id="AK"), "are given together, or neither"),
        (lambda: swell.Objects("s3://inbox", secret=SECRET), "are given together, or neither"),
        (lambda: swell.Objects("s3://AK:x@inbox"), "The url names a bucket"),
        (lambda: swell.RedisStream("redis://x", "s", group=""), "group is missing"),
        (lambda: swell.Rows("sqlite:///x.db", "SELECT 1", watermark="id", secret=SECRET), "needs no password"),
        (lambda: swell.Rows("sqlite:///x.db", "SELECT 1", watermark="id", every_s="1"), r"Rows\(every_s=…\): expected"),
    ],
)
def test_what_cannot_be_is_refused(use: Any, says: str) -> None:
    with pytest.raises(swell.Error, match=says):
        use()
