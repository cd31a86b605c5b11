"""What events is a function called for? What trigger= takes beside schedules, and what of that cannot be."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from swell.model import source as sources
from swell.model import subscription as model
from swell.model.errors import SwellError
from swell.model.secret import SecretUse
from swell.model.source import Since
from swell.sdk.cls import Cls
from swell.sdk.marks import Given
from swell.sdk.parameters import required
from swell.sdk.quantities import bad
from swell.sdk.secret import Secret
from swell.sdk.signatures import public

_AT = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?")
JSON_OR_BYTES = "application/octet-stream"


class Events:
    """What a function is called for."""

    def __init__(self, name: str, kind: type[Any], given: dict[str, Any], secret: object = None) -> None:
        if secret is not None and (not isinstance(secret, Secret) or not secret.name):
            raise SwellError("bad_argument", f"{name}(secret=…): give swell.Secret.from_name(…).")
        try:
            self.source = msgspec.convert({"type": kind.__struct_config__.tag, **given}, kind)
            self.secret = secret
            model.check(model.Subscription(self.source, _use(secret, "")))
        except msgspec.ValidationError as error:
            words, where = _AT.fullmatch(str(error)).groups()  # type: ignore[union-attr]
            raise SwellError("bad_argument", f"{name}({where or ''}=…): {words[:1].lower()}{words[1:]}.") from None
        except SwellError as error:
            raise SwellError("bad_argument", f"{name}(…): {error.message}", status=422) from None

    def __repr__(self) -> str:
        # Without what is as it is by default.
        fields = msgspec.structs.fields(type(self.source))
        said = [(each.name, getattr(self.source, each.name)) for each in fields]
        unsaid = {each.name: each.default for each in fields}
        words = [f"{name}={value!r}" for name, value in said if value != unsaid[name]]
        words += [f"secret={self.secret!r}"] if self.secret is not None else []
        return f"{type(self).__name__}({', '.join(words)})"


class HttpEvents(Events):
    """CloudEvents that are posted to `/trigger/{app}/{function}`.

    With a `secret` each is signed: `header` has the HMAC-SHA256 of the body in hex, with or without `sha256=` in front.
    With an `id_header`, which tells one from all others, webhooks that are no CloudEvents are taken as well; the
    `type_header` says what kind each is. With `replay_s` a signature says when it was made, `t=1700000000,v1=…`, is of
    that time, a dot and the body, and holds for so many seconds.
    """

    @public
    def __init__(
        self,
        *,
        secret: Secret | None = None,
        header: str = "X-Hub-Signature-256",
        id_header: str = "",
        type_header: str = "",
        replay_s: float = 0.0,
    ) -> None:
        given = {"header": header, "id_header": id_header, "type_header": type_header}
        lower = {name: value.lower() if isinstance(value, str) else value for name, value in given.items()}
        super().__init__("HttpEvents", model.HttpEvents, {**lower, "replay_s": replay_s}, secret)


class Files(Events):
    """Files in a folder of the server's machine, each once it is whole, and again whenever it has changed.

    `patterns` are of paths in the folder: `*` and `?` as in a shell, `**` for any folders. A file is whole when it was
    the same for `settle_s`; the folder is looked through every `rescan_s`, beside what the system tells of it.
    """

    @public
    def __init__(
        self, folder: str, patterns: str | Sequence[str] = "**/*", *, settle_s: float = 1.0, rescan_s: float = 60.0
    ) -> None:
        listed = [patterns] if isinstance(patterns, str) else patterns
        given = {"folder": folder, "patterns": listed, "settle_s": settle_s, "rescan_s": rescan_s}
        super().__init__("Files", sources.Files, given)


class NatsStream(Events):
    """Messages of a JetStream stream, by a durable consumer: who names the same shares the messages.

    `since` says what becomes of those that are there already when the consumer is made: "all" or "new". `secret` has
    the password of the user in the url, or a token. `content_type` is that of messages that do not say it.
    """

    @public
    def __init__(
        self,
        url: str,
        stream: str,
        *,
        consumer: str,
        subject: str = "",
        since: Since = "all",
        ack_wait_s: float = 30.0,
        content_type: str = JSON_OR_BYTES,
        secret: Secret | None = None,
    ) -> None:
        given = {"url": url, "stream": stream, "consumer": consumer, "subject": subject, "since": since}
        given |= {"ack_wait_s": ack_wait_s, "content_type": content_type}  # type: ignore[dict-item]
        super().__init__("NatsStream", sources.NatsStream, given, secret)


class Objects(Events):
    """Objects of a store that speaks S3, each once, and again whenever it was written.

    `url` is `s3://bucket`, or `s3://bucket/` and what keys begin with; `suffix` is what they end with. They are listed
    `every_s`. An object that shows up with a time of its own from before that of others comes if it is `late_s` late at
    most. `since="new"`: only what was written after the deploy. `secret` has the secret access key of `access_key_id`;
    without them credentials are those of the server's environment or machine.
    """

    @public
    def __init__(
        self,
        url: str,
        suffix: str = "",
        *,
        since: Since = "all",
        every_s: float = 30.0,
        late_s: float = 86_400.0,
        endpoint_url: str = "",
        region: str = "",
        access_key_id: str = "",
        secret: Secret | None = None,
    ) -> None:
        given = {"url": url, "suffix": suffix, "since": since, "every_s": every_s, "late_s": late_s}
        given |= {"endpoint_url": endpoint_url, "region": region, "access_key_id": access_key_id}
        super().__init__("Objects", sources.Objects, given, secret)


class RedisStream(Events):
    """Entries of a Redis stream, by a consumer group.

    The body is the `field` of that name, in `content_type`, or all fields as JSON. What another `consumer` of the group
    has had for `claim_s` is taken over.
    """

    @public
    def __init__(
        self,
        url: str,
        stream: str,
        *,
        group: str,
        consumer: str = "swell",
        field: str = "",
        since: Since = "all",
        claim_s: float = 60.0,
        content_type: str = JSON_OR_BYTES,
        secret: Secret | None = None,
    ) -> None:
        given = {"url": url, "stream": stream, "group": group, "consumer": consumer, "field": field, "since": since}
        given |= {"claim_s": claim_s, "content_type": content_type}  # type: ignore[dict-item]
        super().__init__("RedisStream", sources.RedisStream, given, secret)


class Rows(Events):
    """New rows of a query to SQLite or PostgreSQL, each once, as JSON.

    The column `watermark` grows with each row; `key` tells apart those that have the same. It is asked `every_s`, or
    when anything comes on the `channel` of PostgreSQL's NOTIFY. Where the watermark is a time, `settle_s` is how much
    later than that a row may become visible, and no less than what it is rounded to. 0 is for a sequence of numbers.
    """

    @public
    def __init__(
        self,
        url: str,
        query: str,
        *,
        watermark: str,
        key: str = "",
        every_s: float = 5.0,
        channel: str = "",
        settle_s: float = 1.0,
        secret: Secret | None = None,
    ) -> None:
        given = {"url": url, "query": query, "watermark": watermark, "key": key, "channel": channel}
        given |= {"every_s": every_s, "settle_s": settle_s}  # type: ignore[dict-item]
        super().__init__("Rows", sources.Rows, given, secret)


def subscribed(given: Given, namespace: str) -> model.Subscription | None:
    """What trigger= means where that is no schedule; nothing of a class."""
    value = given.values.get("trigger")
    if isinstance(value, Cls):
        return model.Subscription(model.OwnSource(value.name))
    if not isinstance(value, Events):
        return None
    return model.Subscription(value.source, _use(value.secret, namespace))


def check_own(given: Given) -> None:
    """Refuse a class that cannot find the events of a function."""
    # Imported at a deploy alone: replicas import this module, too.
    from swell.sdk.source import Source

    found = given.values.get("trigger")
    if not isinstance(found, Cls):
        return
    raw = getattr(found, "__swell_raw__", None)
    if raw is None or not issubclass(raw, Source):
        raise bad(given, "trigger", f"{found.name} finds no events: give a swell.Source of this app, or a trigger")
    if not found.is_plain or required(raw):
        raise bad(given, "trigger", f"{found.name} is begun as it is deployed: without parameters and other options")
    if not inspect.isasyncgenfunction(raw.events):
        raise bad(given, "trigger", f"{found.name} finds no events: write async def events(self), with yield")
    if not inspect.iscoroutinefunction(raw.ack) or raw.deliver is not Source.deliver:
        raise bad(given, "trigger", f"{found.name}.ack is async def ack(self, event), and its deliver is our own")


def _use(secret: Any, namespace: str) -> SecretUse | None:
    return None if secret is None else SecretUse(secret.namespace or namespace, secret.name, secret.required)


def check(given: Given, name: str, function: Any, needed: Sequence[str], streams: bool, web: bool) -> None:
    """Refuse events for what cannot be called with one, and return once. `needed`: arguments that it needs."""
    if subscribed(given, "") is None:
        return
    check_own(given)
    if streams or web:
        what = "a web endpoint" if web else "a generator"
        raise bad(given, "trigger", f"{name} is {what}, and what is called for events returns once")
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None or first.kind not in places:
        raise bad(given, "trigger", f"{name} takes no argument: it is called with the event, (event: swell.Event)")
    if first.annotation is first.empty:
        words = f"what {name} is called with is an event: write {name}({first.name}: swell.Event)"
        raise bad(given, "trigger", words)
    others = [each for each in needed if each != first.name]
    if others:
        raise bad(given, "trigger", f"{name} is given the event alone, and needs {', '.join(others)}: give a default")
