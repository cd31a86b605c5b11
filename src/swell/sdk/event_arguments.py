"""What do the arguments of what trigger= takes do?"""

from __future__ import annotations

_SECRET = "Subscription.secret: the password, of that of its variables which required_keys names, or its only one"
_SINCE = "of what is there when it is first read: all of it, or nothing"
_TYPE = "what the data is read as"

EFFECTS: dict[str, dict[str, str]] = {
    "HttpEvents": {
        "secret": "Subscription.secret: events are taken only with a signature that was made with it",
        "header": "HttpEvents.header of Subscription.source: where the signature stands",
        "id_header": "HttpEvents.id_header of Subscription.source: where a webhook that is no CloudEvent has its id",
        "type_header": "HttpEvents.type_header of Subscription.source: and its type",
        "replay_s": "HttpEvents.replay_s of Subscription.source: a signature says when it was made, and holds so long",
    },
    "Files": {
        "folder": "Files.folder of Subscription.source: with all that is below it",
        "patterns": "Files.patterns of Subscription.source: which files of it",
        "settle_s": "Files.settle_s of Subscription.source: a file that was the same for so long is whole",
        "rescan_s": "Files.rescan_s of Subscription.source: the folder is looked through so often",
    },
    "NatsStream": {
        "url": "NatsStream.url of Subscription.source: the server",
        "stream": "NatsStream.stream of Subscription.source",
        "consumer": "NatsStream.consumer of Subscription.source: made where it is not there",
        "subject": "NatsStream.subject of Subscription.source: only messages of that one",
        "since": f"NatsStream.since of Subscription.source: {_SINCE}",
        "ack_wait_s": "NatsStream.ack_wait_s of Subscription.source: what is not in the queue by then comes again",
        "content_type": f"NatsStream.content_type of Subscription.source: {_TYPE} where a message does not say it",
        "secret": f"{_SECRET}; without a user in the url it is a token",
    },
    "Objects": {
        "url": "Objects.url of Subscription.source: the bucket, and what keys begin with",
        "suffix": "Objects.suffix of Subscription.source: what keys end with",
        "since": f"Objects.since of Subscription.source: {_SINCE}",
        "every_s": "Objects.every_s of Subscription.source: keys are listed so long after they were listed",
        "late_s": "Objects.late_s of Subscription.source: an object may show up so long after its own time",
        "endpoint_url": "Objects.endpoint_url of Subscription.source: the store, where that is not AWS",
        "region": "Objects.region of Subscription.source",
        "access_key_id": "Objects.access_key_id of Subscription.source: who asks",
        "secret": "SecretUse.name of Subscription.secret: the secret access key, in that of its variables which "
        "required_keys names, or its only one",
    },
    "RedisStream": {
        "url": "RedisStream.url of Subscription.source: the server",
        "stream": "RedisStream.stream of Subscription.source",
        "group": "RedisStream.group of Subscription.source: made where it is not there",
        "consumer": "RedisStream.consumer of Subscription.source: the name of this server in the group",
        "field": "RedisStream.field of Subscription.source: the data; without it, that is all fields",
        "since": f"RedisStream.since of Subscription.source: {_SINCE}",
        "claim_s": "RedisStream.claim_s of Subscription.source: what another one has had for so long is taken over",
        "content_type": f"RedisStream.content_type of Subscription.source: {_TYPE} where there is a field=",
        "secret": _SECRET,
    },
    "Rows": {
        "url": "Rows.url of Subscription.source: the database",
        "query": "Rows.query of Subscription.source: a SELECT",
        "watermark": "Rows.watermark of Subscription.source: the column that grows",
        "key": "Rows.key of Subscription.source: the column that tells apart what has the same watermark",
        "every_s": "Rows.every_s of Subscription.source: it is asked so often",
        "channel": "Rows.channel of Subscription.source: it is asked when anything is told there",
        "settle_s": "Rows.settle_s of Subscription.source: rows are given so long after they were first seen",
        "secret": _SECRET,
    },
}
"""As `arguments.EFFECTS`."""
