"""Where do requests go once an app's traffic is split? The app that is composed, and the choice for each request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.control.versions import numbered
from swell.decide.route import Found, NoRoute, Routes, route
from swell.decide.split import Choice, choose, drawn
from swell.decide.traffic import alone, green, labels, newer, split, staged
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.request import Led
from swell.model.traffic import Branch, ByHeader, ByTag, Traffic, check
from swell.model.workload import App, Entry, Method, Revision, Scaling, Web, Workload
from swell.wire.link import Route


def version(number: int, **bundles: str) -> App:
    """An app of these functions, each with its source; `page` is a web endpoint."""
    revisions = {}
    for name, bundle in bundles.items():
        web = Web("endpoint", f"a--{name}") if name == "page" else None
        entry = Entry("m", name, "function", (Method(name, web=web),))
        revisions[name] = Revision(Environment("/usr/bin/python3", "3.11"), bundle, entry)
    workloads = tuple(Workload("default", "a", name, each.id, Scaling()) for name, each in revisions.items())
    return numbered(App("default", "a", workloads, tuple(revisions.values())), number)


def of(app: App, name: str) -> Workload:
    return next(each for each in app.workloads if each.name == name)


def told(workload: Workload) -> list[tuple[int, float]]:
    rest = 100 - sum(each.percent for each in workload.splits)
    return [(workload.version, rest), *((each.version, each.percent) for each in workload.splits)]


V3, V4 = version(3, f="3", g="same", page="3"), version(4, f="4", g="same", page="4", more="4")


def test_shares_and_what_is_the_same_in_both() -> None:
    app = split(V3, Traffic(((4, 10), (3, 90))), {4: V4})
    assert told(of(app, "f")) == [(3, 90), (4, 10)]
    assert told(of(app, "g")) == [(3, 100)]
    assert {each.bundle for each in app.revisions} == {"3", "4", "same"}
    assert (app.version, newer(app)) == (3, [4])
    assert alone(app) == V3


def test_the_main_version_is_as_now_while_it_has_a_share_and_then_the_largest() -> None:
    assert told(of(split(V3, Traffic(((4, 90), (3, 10))), {4: V4}), "f")) == [(3, 10), (4, 90)]
    assert told(of(split(V3, Traffic(((4, 100),)), {4: V4}), "f")) == [(4, 100)]
    assert told(of(split(V3, Traffic(((4, 100), (3, 0))), {4: V4}), "f")) == [(4, 100), (3, 0)]


def test_one_function_alone_and_one_that_is_not_there() -> None:
    app = split(V3, Traffic(((4, 100),), function="f"), {4: V4})
    assert [each.version for each in app.workloads] == [4, 3, 3]
    with pytest.raises(SwellError, match=r"App 'a' has no function or class 'h'\. It has f, g, page"):
        split(V3, Traffic(((4, 100),), function="h"), {4: V4})


def test_headers_and_tags_beside_all_of_the_traffic() -> None:
    asked = Traffic(headers=(ByHeader("X-Variant", "b", 4),), tags=(ByTag("canary", 4),), hash_header="X-User")
    workload = of(split(V3, asked, {4: V4}), "f")
    assert [(each.header, each.tag, each.percent) for each in workload.splits] == [
        (("x-variant", "b"), "", 0),
        (None, "canary", 0),
    ]
    assert workload.hash_header == "x-user"
    assert labels(split(V3, asked, {4: V4})) == {"a--page", "canary--a--page"}


def test_what_is_staged_is_reached_by_its_tag_and_what_it_took_away_stays() -> None:
    app = staged(V3, version(5, f="5", g="same"))
    assert [(each.version, each.tag, each.warm, each.percent) for each in of(app, "f").splits] == [
        (5, "green", True, 0)
    ]
    assert [each.warm for each in of(app, "g").splits] == [False]
    assert of(app, "page").splits == ()
    assert (green(app), green(V3), app.version) == (5, 0, 3)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Traffic(((4, 10), (3, 80))), r"add up to 90, not to 100 \(v4=10 v3=80\)"),
        (Traffic(((4, 50), (4, 50))), "two shares"),
        (Traffic(((4, 120), (3, -20))), "from 0 to 100"),
        (Traffic(hash_header="Authorization"), "no header"),
        (Traffic(hash_header="X User"), "no header"),
        (Traffic(headers=(ByHeader("Swell-Timeout", "1", 3),)), "no header"),
        (Traffic(tags=(ByTag("v3", 3),)), "'v3' is no tag"),
        (Traffic(tags=(ByTag("a--b", 3),)), "no tag"),
        (Traffic(tags=(ByTag("a", 3), ByTag("a", 4))), "leads to one version"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: Traffic, why: str) -> None:
    with pytest.raises(SwellError, match=why) as refused:
        check(asked)
    assert (refused.value.code, refused.value.status) == ("bad_traffic", 422)


def test_a_label_that_is_too_long_with_its_tag() -> None:
    long = Web("endpoint", "x" * 60)
    entry = Entry("m", "f", "function", (Method("f", web=long),))
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "1", entry)
    app = numbered(App("default", "a", (Workload("default", "a", "f", revision.id),), (revision,)), 1)
    with pytest.raises(SwellError, match="longer than the 63 characters"):
        split(app, Traffic(tags=(ByTag("canary", 1),)), {})


# -- one request -----------------------------------------------------------------------------------

FN = Method("f")
keys = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=60, unique=True)


def choices(*percents: float) -> list[Choice]:
    return [Choice(f"p{n}", n, FN, percent) for n, percent in enumerate(percents, 1)]


def nothing(_name: str) -> None:
    return None


@given(keys, st.integers(0, 100), st.integers(0, 100))
def test_a_share_that_grows_only_takes_callers_over(callers: list[bytes], one: int, other: int) -> None:
    small, large = sorted((one, other))
    for key in callers:
        before = choose(choices(100 - small, small), key, nothing)
        after = choose(choices(100 - large, large), key, nothing)
        assert after.version == before.version or (before.version, after.version) == (1, 2)


@given(keys, st.integers(0, 60), st.integers(0, 40))
def test_a_third_version_takes_from_all_and_moves_nobody_between_the_others(
    callers: list[bytes], second: int, third: int
) -> None:
    for key in callers:
        before = choose(choices(60, 40, 0), key, nothing).version
        after = choose(choices(60, 40, third), key, nothing).version
        assert after in (before, 3)
    assert choose(choices(100 - second, second), b"x", nothing) == choose(choices(100 - second, second), b"x", nothing)


def test_shares_are_kept_and_none_is_none() -> None:
    drawn = [choose(choices(90, 10, 0), b"%d" % n, nothing).version for n in range(20_000)]
    assert 1700 < drawn.count(2) < 2300
    assert drawn.count(3) == 0


def test_the_same_key_has_the_same_version_in_every_gateway_and_after_every_restart() -> None:
    """What is drawn comes of the key and the shares alone, and of nothing that a process has for itself."""
    drawn = [choose(choices(50, 30, 20), f"user-{n}".encode(), nothing).version for n in range(20)]
    assert drawn == [2, 1, 2, 1, 3, 1, 2, 2, 1, 2, 1, 2, 1, 2, 2, 1, 1, 2, 2, 2]


def test_a_header_goes_before_shares() -> None:
    by_header = [*choices(100), Choice("p9", 9, FN, 0, ("x-variant", "b"))]
    assert choose(by_header, b"k", {"x-variant": "b"}.get).version == 9
    assert choose(by_header, b"k", {"x-variant": "c"}.get).version == 1
    assert choose(by_header, b"k", nothing).version == 1


# -- its route -------------------------------------------------------------------------------------


def row(**more: Any) -> Route:
    web = Method("page", web=Web("endpoint", "a--page"))
    branches = (
        Branch("p4", 4, (FN, web), percent=10.0),
        Branch("p4", 4, (FN, web), tag="canary"),
        Branch("p2", 2, (), percent=20.0),
    )
    plain = Route("default", "a", "f", "p3", (FN, web), False, version=3, branches=branches, hash_header="x-user")
    return msgspec.structs.replace(plain, **more)


def test_a_call_of_a_split_workload_has_the_choices_that_offer_it() -> None:
    found = route(Routes([row()]), "localhost", "/call/a/f")
    assert isinstance(found, Found)
    assert [(each.pool, each.percent) for each in found.choices] == [("p3", 90.0), ("p4", 10.0)]
    assert (found.pool, found.hash_header) == ("p3", "x-user")
    plain = route(Routes([row(branches=())]), "localhost", "/call/a/f")
    assert isinstance(plain, Found)
    assert plain.choices == ()


@pytest.mark.parametrize(
    ("host", "path", "pool"),
    [
        ("localhost", "/call/a@canary/f", "p4"),
        ("localhost", "/call/default/a@v4/f", "p4"),
        ("localhost", "/call/a@v3/f", "p3"),
        ("localhost", "/web/canary--a--page/x", "p4"),
        ("canary--a--page.localhost:8470", "/x", "p4"),
    ],
)
def test_a_tag_or_version_leads_to_it_alone(host: str, path: str, pool: str) -> None:
    found = route(Routes([row()]), host, path)
    assert isinstance(found, Found)
    assert (found.pool, found.choices) == (pool, ())


def test_a_version_that_is_not_reached_names_those_that_are() -> None:
    missing = route(Routes([row()]), "localhost", "/call/a@v9/f")
    assert isinstance(missing, NoRoute)
    assert (missing.code, missing.status) == ("unknown_version", 404)
    assert "canary, v2, v3, v4" in missing.message


def test_what_led_a_request_to_its_version_is_known() -> None:
    among = [*choices(90, 10), Choice("p9", 9, FN, 0, ("x-variant", "b"))]
    users = [str(n) for n in range(50)]
    for user in users:
        choice, led = drawn(among, "x-user", {"x-user": user}.get, bytes)
        assert led == Led(choice.version, "hash", "x-user", choice.percent)
        assert choice == choose(among, user.encode(), nothing), "as it would be drawn without being asked why"
    assert drawn(among, "x-user", {"x-user": "1", "x-variant": "b"}.get, bytes)[1] == Led(9, "header", "x-variant")
    lots = {drawn(among, asked, nothing, lambda n=n: b"%d" % n)[1] for asked in ("", "x-user") for n in range(50)}
    assert lots == {Led(n, "lot", asked, p) for n, p in ((1, 90), (2, 10)) for asked in ("", "x-user")}
