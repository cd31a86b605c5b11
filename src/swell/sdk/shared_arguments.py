"""What does each argument of dicts and queues do? Part of the table in `arguments`."""

from __future__ import annotations

KEY = "the key that pickles to the same bytes"
PARTITION = "the partition; default: the one without a name"
COMMON: dict[str, dict[str, str]] = {
    "from_name": {
        "name": "the one of that name",
        "environment_name": "the namespace; in a function, its own by default",
        "create_if_missing": "it is made when it is first used",
    },
    "from_id": {"object_id": "the one of that id"},
    "ephemeral": {"environment_name": "the namespace"},
    "objects.create": {
        "name": "its name",
        "allow_existing": "one that is there is no error",
        "environment_name": "the namespace",
    },
    "objects.list": {
        "max_objects": "the newest so many",
        "created_before": "those made before that time",
        "environment_name": "the namespace",
    },
    "objects.delete": {
        "name": "its name",
        "allow_missing": "one that is not there is no error",
        "environment_name": "the namespace",
    },
}
PUT = {
    "block": "False: queue.Full at once where the partition is full",
    "timeout": "queue.Full after so many seconds in which it was",
    "partition": PARTITION,
    "partition_ttl": "the partition expires after so many seconds without a put",
}
GET = {
    "block": "False: nothing is waited for",
    "timeout": "queue.Empty after so many seconds without an item",
    "partition": PARTITION,
}
