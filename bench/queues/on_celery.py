"""A task of Celery, on Redis, which keeps its result, too. QUEUE_DURABLE: it is acknowledged once it has run."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

from celery import Celery

app = Celery("on_celery", broker=os.environ["QUEUE_URL"], backend=os.environ["QUEUE_URL"])
if os.environ.get("QUEUE_DURABLE"):
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
opened = nullcontext


@app.task
def nothing() -> None:
    """Nothing."""


def submit() -> Any:
    return nothing.delay()


def wait(call: Any) -> None:
    call.get(timeout=300)


def wait_all(calls: list[Any]) -> None:
    for call in calls:
        wait(call)
