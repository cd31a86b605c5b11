"""How are the objects of a store that speaks S3 listed, a thousand at a time?

botocore lists them: it knows all the places that credentials may be in, and takes keys as they are. (A library that
takes them for paths fails at one that has two slashes in a row, and lists nothing behind it.) It blocks, so it is asked
in a thread of its own. Every portion is asked for by the key it begins behind; so a look goes on where it was, whatever
was lost meanwhile. Which objects are new is `model.objects`' business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from typing import Any

import botocore
import msgspec

from swell.model.objects import KNOWN_MAX, Object, Reading
from swell.model.source import Message, Objects, bucket_of
from swell.sources.threads import OwnThread

log = logging.getLogger("swell.sources")

CONNECT_S = 5.0
READ_S = 20.0
ANSWER_S = 28.0
"""For any answer, and to find credentials."""
PORTION = 1000
"""Objects that are listed at once: stores list no more."""
CROWDED = (
    "more came of %s than is remembered: what shows up with a time from before the newest %d objects does not come"
)
AGENT = f"swell botocore/{botocore.__version__}"


class ObjectSource:
    """The port, for a bucket."""

    def __init__(self, config: Objects, password: str = "") -> None:
        """`password`: the secret access key of who is named."""
        self._config = config
        self._password = password
        self._asking = OwnThread("swell-objects")
        self._reading: Reading | None = None
        """What is known, whatever connection found it."""
        self._handed = ""
        """The watermark of what was handed out last, or the first one: what is known goes on from there."""

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[_Bucket]:
        """See the port."""
        # Each time anew: what credentials the environment has may be others by now.
        client = await self._asking.run(partial(_client, self._config, self._password), ANSWER_S)
        if self._reading is None or after != self._handed:
            self._reading, self._handed = Reading(after, self._config.late_s), after
        bucket = _Bucket(self, self._reading, client)
        # Whether it may be listed shows now.
        await bucket.list_portion()
        yield bucket

    async def listed(self, client: Any, after: str) -> dict[str, Any]:
        """What the store answers: the objects behind a key."""
        return await self._asking.run(partial(_listed, self._config, client, after), ANSWER_S)

    def message(self, each: Object, watermark: str) -> Message:
        """Of an object that is brought."""
        self._handed = watermark
        bucket, _ = bucket_of(self._config.url)
        body = {
            "bucket": bucket,
            "key": each.key,
            "uri": f"s3://{bucket}/{each.key}",
            "size": each.size,
            "etag": each.etag,
            "modified_at": each.modified_ms / 1000,
        }
        at = each.modified_ms / 1000
        return Message(each.id, msgspec.json.encode(body), "application/json", at, each.key, watermark)

    @property
    def config(self) -> Objects:
        return self._config


class _Bucket:
    """A look through it, and another one later."""

    hold_s = None

    def __init__(self, source: ObjectSource, reading: Reading, client: Any) -> None:
        self._client = client
        self._source = source
        self._reading = reading
        self._portion: deque[Object] = deque()
        """What was listed and not looked at yet."""
        self._last = False
        """Nothing is behind that portion."""
        self._rests = False
        """A look has come to its end."""

    async def take(self, most: int) -> Sequence[Message]:
        """See the port."""
        while True:
            messages = self._look(most)
            if messages:
                return messages
            if self._rests:
                await asyncio.sleep(self._source.config.every_s)
            await self.list_portion()

    def _look(self, most: int) -> list[Message]:
        """At what was listed. Nothing is waited for: what is new is known from now on, so it has to be handed out."""
        messages: list[Message] = []
        while self._portion and len(messages) < most:
            each = self._portion.popleft()
            if self._is_new(each):
                messages.append(self._source.message(each, self._reading.found(each)))
            else:
                self._reading.passed(each)
        if self._last and not self._portion:
            self._last, self._rests = False, True
            if self._reading.ended():
                log.warning(CROWDED, self._source.config.url, KNOWN_MAX)
        return messages

    def _is_new(self, each: Object) -> bool:
        # What tools show as a folder is a key that ends in a slash, with nothing in it.
        meant = each.key.endswith(self._source.config.suffix) and (each.size > 0 or not each.key.endswith("/"))
        return meant and self._reading.is_new(each)

    async def list_portion(self) -> None:
        """What comes next, or the first ones."""
        after = self._reading.key
        answer = await self._source.listed(self._client, after)
        if not after:
            self._reading.begins(_date(answer))
        for each in map(_object, answer.get("Contents", ())):
            if each.key <= after:
                # Behind one that is out of order others would be passed over.
                raise ConnectionError("the store does not list keys in their order, or not behind a key")
            after = each.key
            self._portion.append(each)
        self._last, self._rests = not answer.get("IsTruncated"), False
        if not self._last and not self._portion:
            raise ConnectionError("the store has more keys, and lists none")

    async def waiting(self) -> int | None:
        """See the port: of what was listed."""
        return sum(self._is_new(each) for each in self._portion)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """See the port: the watermark is all there is to remember."""

    async def hold(self, messages: Sequence[Message]) -> None:
        """See the port: nobody else gets them."""


def _listed(config: Objects, client: Any, after: str) -> dict[str, Any]:
    """In a thread."""
    from botocore.exceptions import NoCredentialsError

    bucket, prefix = bucket_of(config.url)
    try:
        answer = client.list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=after, MaxKeys=PORTION)
    except NoCredentialsError:
        words = "no credentials: give access_key_id and secret, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise ConnectionError(f"{words} where the server runs") from None
    return dict(answer)


@cache
def _loader() -> Any:
    """What botocore knows of S3. It is 12 MB, and read once."""
    from botocore.loaders import create_loader

    return create_loader()


def _client(config: Objects, secret_access_key: str) -> Any:
    """In a thread: to load it takes a while, and to find credentials may take seconds."""
    import botocore.session
    from botocore.config import Config

    options = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        # Nothing is tried again behind our back.
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=1,
        user_agent=AGENT,
        # Where a store is named by its host alone, its buckets have no hosts of their own.
        s3={"addressing_style": "path"} if config.endpoint_url else None,
    )
    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    return session.create_client(
        "s3",
        region_name=config.region or session.get_config_variable("region") or "us-east-1",
        endpoint_url=config.endpoint_url or None,
        aws_access_key_id=config.access_key_id or None,
        aws_secret_access_key=secret_access_key or None,
        config=options,
    )


def _object(listed: dict[str, Any]) -> Object:
    modified: datetime = listed["LastModified"]
    return Object(listed["Key"], listed.get("ETag", "").strip('"'), listed["Size"], round(modified.timestamp() * 1000))


def _date(answer: dict[str, Any]) -> float:
    """When it was given, by the store's clock; by our own where it does not say."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return parsedate_to_datetime(said).timestamp()
    except ValueError:
        return time.time()
