"""Is each caller told of the names it may see, and of no others, however it asks for one that is not there?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest
from holders import bearer, give, key
from rig import KEY, Rig, pool_row, web

from swell.gateway import front
from swell.model.near import did_you_mean
from swell.model.openai import Offer
from swell.model.tensors import Tensors
from swell.model.workload import Method
from swell.wire.link import Route

Play = Callable[..., None]

HIDDEN = ("kiosks", "hidden", "opener", "modeler", "secretive")
"""Names of what the key may not see: an app, a function, a web label, a model of either protocol."""


async def deploy(rig: Rig, app: str, *methods: Method, name: str) -> None:
    pool = f"default/{app}/{name}@rv-000000000001"
    row = Route("default", app, name, pool, methods, True)
    rig.control.publish(routes=(row,), pools=(pool_row(name, pool=pool),))
    await rig.seen()


async def both(rig: Rig) -> None:
    """Two apps with names near each other in every protocol; keys for the first, for both, and for none of them."""
    await deploy(
        rig,
        "kiosk",
        Method("run"),
        web("open", "page"),
        Method("chat", openai=Offer("chat.completions", "model")),
        Method("infer", tensors=Tensors((), ())),
        name="fn",
    )
    await deploy(
        rig,
        "kiosks",
        Method("hidden"),
        web("opener", "page"),
        Method("chat", openai=Offer("chat.completions", "modeler")),
        Method("secretive", tensors=Tensors((), ())),
        name="hidden",
    )
    await give(rig, key("some2222", "call:default/kiosk"), key("all22222", "call:*/*"), key("none2222", "call:x/y"))


ASKED = [
    ("POST", "/call/kios/fn.run", b""),
    ("POST", "/call/kiosks/fn.run", b""),
    ("POST", "/call/kiosks/hidde.hidden", b""),
    ("POST", "/call/kiosks/hidden.zzz", b""),
    ("POST", "/call/kiosks/hidden.page", b""),
    ("POST", "/call/kiosks@v9/hidden.hidden", b""),
    ("GET", "/web/opene/", b""),
    ("GET", "/v1/models/modele", b""),
    ("POST", "/v1/chat/completions", json.dumps({"model": "modele"}).encode()),
    ("POST", "/v1/embeddings", json.dumps({"model": "modeler"}).encode()),
    ("GET", "/v2/models/zzz", b""),
    ("GET", "/v2/models/kiosks--hidden-secretiv", b""),
    ("GET", "/v2/models/kiosks--hidden-secretive/versions/9", b""),
]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_key_is_told_of_no_name_that_it_may_not_see(play: Play, host: str) -> None:
    async def scenario(rig: Rig) -> None:
        await both(rig)
        browser = await rig.browser()
        told = {}
        for id in ("all22222", "some2222", "none2222"):
            for method, path, body in ASKED:
                answer = await browser.call(path, body, method, authorization=bearer(id))
                assert answer.status == 404, (path, answer.body)
                # What was asked for is repeated, and nobody learns anything from that.
                words = answer.body.decode()
                asked = f"{path} {body.decode()}".replace("%20", " ")
                told[id, path] = {name for name in HIDDEN if name in words and name not in asked}
        assert told["all22222", "/call/kios/fn.run"] == {"kiosks"}
        assert told["all22222", "/web/opene/"] >= {"opener"}
        assert told["all22222", "/v2/models/zzz"] >= {"secretive"}
        assert told["all22222", "/v1/models/modele"] >= {"modeler"}
        for id in ("some2222", "none2222"):
            for _, path, _ in ASKED:
                assert not told[id, path] & set(HIDDEN), (id, path)

    play(scenario, host=host)


LISTED = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/model"),
    ("GET", "/v2/models"),
    ("POST", "/v2/repository/index"),
    ("GET", "/v2/models/kiosk--fn-infer"),
    ("GET", "/v2/models/kiosk--fn-infer/ready"),
]


def test_a_page_of_a_name_that_was_made_to_point_here_reads_no_name(play: Play) -> None:
    """A browser sends an Origin with what a page posts, and none with what it reads of where it came from."""

    async def scenario(rig: Rig) -> None:
        await both(rig)
        browser = await rig.browser()
        for shown in ({}, {"authorization": "Bearer theirs"}):
            for method, path, body in ASKED:
                posted = {"origin": "http://evil.example"} if method == "POST" else {}
                answer = await browser.call(path, body, method, host="evil.example", **posted, **shown)
                words, asked = answer.body.decode(), f"{path} {body.decode()}"
                assert answer.status in (403, 404), (path, answer.body)
                assert not [name for name in (*HIDDEN, "kiosk") if name in words and name not in asked], path
        for method, path in LISTED:
            refused = await browser.call(path, method=method, host="evil.example")
            assert refused.status == 403, path
            assert b"allowed_hosts" in refused.body
            key = {"authorization": f"Bearer {KEY}"}
            for shown in ({"host": "named.example"}, {"host": "192.0.2.7:8470"}, {"host": "evil.example", **key}):
                assert (await browser.call(path, method=method, **shown)).status == 200, path
        # Clients of the OpenAI API always send a key: it opens nothing here.
        overlooked = await browser.call("/v1/models", method="GET", host="evil.example", authorization="Bearer theirs")
        assert overlooked.status == 403
        for probe in ("live", "ready"):
            assert (await browser.call(f"/v2/health/{probe}", method="GET", host="evil.example")).status == 200
        for host in ("named.example", "evil.example"):
            # That is no page: it may call, too.
            near = await browser.call("/call/kios/fn.run", host=host)
            assert "Did you mean" in near.error["message"]

    play(scenario, allowed_hosts=("named.example",))


def test_near_names_among_those_that_it_may_see_are_told(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await both(rig)
        browser = await rig.browser()
        for path, hint in (
            ("/call/kios/fn.run", "Did you mean kiosk?"),
            ("/call/kiosks/fn.run", "Did you mean kiosk?"),
            ("/web/opene/", "Did you mean open?"),
        ):
            answer = await browser.call(path, authorization=bearer("some2222"))
            assert hint in answer.error["message"]
        models = await browser.call("/v2/models/zzz", method="GET", authorization=bearer("some2222"))
        assert "There is kiosk--fn-infer." in models.body.decode()
        # The next table may have another answer.
        rig.control.publish(gone_routes=("default/kiosk/fn",))
        await rig.seen()
        answer = await browser.call("/call/kios/fn.run", authorization=bearer("some2222"))
        assert "Did you mean" not in answer.error["message"]
        assert "kiosks" in (await browser.call("/call/kios/fn.run", authorization=f"Bearer {KEY}")).error["message"]

    play(scenario)


def test_names_are_compared_for_those_alone_who_are_told_of_them(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def noted(name: str, names: Iterable[str]) -> str:
        among = [*names]
        compared.extend(among)
        return did_you_mean(name, among)

    monkeypatch.setattr("swell.decide.route.did_you_mean", noted)

    async def scenario(rig: Rig) -> None:
        await both(rig)
        browser = await rig.browser()
        nobody: tuple[dict[str, str], ...] = ({}, {"authorization": bearer("all22222", "b" * 32)})
        for method, path, body in ASKED:
            for shown in nobody:
                assert (await browser.call(path, body, method, **shown)).status == 401
        assert compared == []
        for method, path, body in ASKED:
            assert (await browser.call(path, body, method, authorization=bearer("some2222"))).status == 404
        assert "kiosk" in compared
        assert not [name for name in compared if any(hidden in name for hidden in HIDDEN)]

    play(scenario, host="0.0.0.0")


def test_views_that_are_kept_are_bounded(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "VIEWS_MAX", 3)

    async def scenario(rig: Rig) -> None:
        await both(rig)
        await give(rig, *(key(f"many222{letter}", f"call:{letter}/*") for letter in "abcdefgh"))
        browser = await rig.browser()
        for letter in "abcdefgh":
            answer = await browser.call("/call/kios/fn", authorization=bearer(f"many222{letter}"))
            assert answer.status == 404
            assert 0 < len(rig.front.views) <= 3

    play(scenario)
