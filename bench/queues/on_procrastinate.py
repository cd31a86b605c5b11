"""A job of procrastinate, in PostgreSQL, which syncs each commit unless it is told otherwise.

It keeps no results: that a job is done is asked of its table, every 5 ms for one and every 20 ms for all.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import procrastinate
import psycopg

URL = os.environ["QUEUE_URL"]
app = procrastinate.App(
    connector=procrastinate.SyncPsycopgConnector(conninfo=URL)
    if os.environ.get("QUEUE_CLIENT")
    else procrastinate.PsycopgConnector(conninfo=URL)
)
_own = threading.local()


@app.task
def nothing() -> None:
    """Nothing."""


@contextmanager
def opened() -> Iterator[None]:
    with app.open():
        yield


def submit() -> Any:
    return nothing.defer()


def _one(query: str, *given: object) -> Any:
    if not hasattr(_own, "connection"):
        _own.connection = psycopg.connect(URL, autocommit=True)
    return _own.connection.execute(query, given).fetchone()[0]


def wait(call: Any) -> None:
    while _one("SELECT status FROM procrastinate_jobs WHERE id = %s", call) != "succeeded":
        time.sleep(0.005)


def wait_all(calls: list[Any]) -> None:
    last = max(calls)
    while _one("SELECT count(*) FROM procrastinate_jobs WHERE id <= %s AND status <> 'succeeded'", last):
        time.sleep(0.02)
