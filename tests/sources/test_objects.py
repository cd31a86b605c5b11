"""Are the objects of a store delivered whatever their keys are, and is it told why where they are not?"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from feeding import at, feed, taken, told
from msgspec.structs import replace
from places import CREDENTIALS, Bucket

from private_swell import free_port
from swell.model.source import Objects
from swell.sources import made, objects
from swell.sources.feed import Feed


@at(Bucket)
def test_keys_that_are_odd_and_more_than_are_listed_at_once(somewhere: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = objects._listed
    behind: list[str] = []

    def listed(config: Objects, client: Any, after: str) -> dict[str, Any]:
        behind.append(after)
        return asked(config, client, after)

    monkeypatch.setattr(objects, "_listed", listed)
    monkeypatch.setattr(objects, "PORTION", 3)

    async def run() -> None:
        await somewhere.begin()
        odd = ["in//a.json", "in/ä +%2F&.json", "in/<x>'\".json", "in/../b.json", "in/.json", "in/a/b.json"]
        for key in (*odd, "in/c.csv", "other/d.json", "inner.json"):
            somewhere.put(key)
        somewhere.put("in/folder/", b"")
        async with feed(somewhere) as came:
            found = await taken(came, len(odd))
            assert [each.subject for each in found] == sorted(odd)
            first = json.loads(found[0].body)
            assert first["uri"] == f"s3://{somewhere.name}/{sorted(odd)[0]}"
            assert (first["bucket"], first["key"], first["size"]) == (somewhere.name, sorted(odd)[0], 2)
            assert first["etag"] == hashlib.md5(b"{}").hexdigest()
            listed_in_order = sorted([*odd, "in/c.csv", "in/folder/"])
            assert behind[:3] == ["", listed_in_order[2], listed_in_order[5]]
            somewhere.put("in/a/b.json", b"again")
            (again,) = await taken(came, 1)
            assert (again.subject, json.loads(again.body)["size"]) == ("in/a/b.json", 5)
            assert again.id not in {each.id for each in found}
        somewhere.put("in/folder/x/", b"not a folder")
        async with Feed(
            "all", made(replace(somewhere.config(), url=f"s3://{somewhere.name}/in/fold", suffix=""))
        ) as came:
            assert [each.subject for each in await taken(came, 1)] == ["in/folder/x/"]

    asyncio.run(run())


@at(Bucket)
def test_a_bucket_that_may_not_be_listed_says_why_and_no_key_is_told(
    somewhere: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def why(config: Objects, secret: str = "") -> str:
        async with Feed("bucket", made(config, secret)) as came:
            return await told(came, lambda state: state.failures > 0)

    async def run() -> None:
        await somewhere.begin()
        absent = Objects("s3://absent", endpoint_url=somewhere.endpoint, access_key_id="AK")
        assert "bucket does not exist" in await why(absent, "hunter2")
        nobody = Objects("s3://absent", endpoint_url=f"http://127.0.0.1:{free_port()}", access_key_id="AK")
        assert "Could not connect" in await why(nobody, "hunter2")
        for name in CREDENTIALS:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", "/nowhere")
        assert "no credentials: give access_key_id and secret" in await why(somewhere.config())
        assert "hunter2" not in caplog.text

    asyncio.run(run())


@at(Bucket)
@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (lambda found: {"Contents": found[::-1]}, "does not list keys in their order"),
        (lambda found: {"Contents": [*found, found[0]]}, "does not list keys in their order"),
        (lambda found: {"Contents": [], "IsTruncated": True}, "has more keys, and lists none"),
    ],
    ids=["order", "again", "none"],
)
def test_a_store_that_lists_otherwise_is_not_read(
    somewhere: Bucket, listing: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = objects._listed

    def listed(*given: Any) -> dict[str, Any]:
        answer = asked(*given)
        return {**answer, **listing(answer["Contents"])}

    monkeypatch.setattr(objects, "_listed", listed)

    async def run() -> None:
        await somewhere.begin()
        await somewhere.publish([0, 1])
        async with feed(somewhere) as came:
            assert words in await told(came, lambda state: state.failures > 0)

    asyncio.run(run())
