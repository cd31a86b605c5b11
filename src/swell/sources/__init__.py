"""Which adapter is a source's? Each is imported with the first source of its kind, and with it the library it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swell.model.errors import SwellError
from swell.model.event_trigger import sources
from swell.model.source import Files, NatsStream, Objects, RedisStream, Rows, SourceConfig, SourceState
from swell.model.source_ports import Feed, Source
from swell.model.workload import App


def made(config: SourceConfig, password: str = "") -> Source:
    """The source of a config that was checked. SwellError not_available where its library is not installed.

    `password`: of the user in the url; empty for none.
    """
    match config:
        case Files():
            with _needed("watchfiles", "files"):
                from swell.sources.files import FileSource
            return FileSource(config)
        case NatsStream():
            with _needed("nats", "nats"):
                from swell.sources.nats import NatsSource
            return NatsSource(config, password)
        case Objects():
            with _needed("botocore", "objects"):
                from swell.sources.objects import ObjectSource
            return ObjectSource(config, password)
        case RedisStream():
            with _needed("redis", "redis"):
                from swell.sources.redis import RedisSource
            return RedisSource(config, password)
        case Rows() if config.url.startswith("sqlite"):
            from swell.sources.sqlite import SqliteSource

            return SqliteSource(config)
        case Rows():
            with _needed("asyncpg", "postgres"):
                from swell.sources.postgres import PostgresSource
            return PostgresSource(config, password)


def feed_of(
    name: str, config: SourceConfig, password: str, after: str, held_max: int, changed: Callable[[SourceState], None]
) -> Feed:
    """What comes of a source, behind a watermark. `held_max`: messages of it that are taken and not acknowledged.
    `changed` is told whether it is reached. SwellError as `made`."""
    from swell.sources.feed import Feed as Reconnecting

    return Reconnecting(name, made(config, password), after, held_max, changed=changed)


@contextmanager
def _needed(library: str, extra: str) -> Iterator[None]:
    """A library that is installed with an extra of this package alone."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        words = f"This kind of source needs {library}, which is not installed here: pip install 'swell[{extra}]'."
        raise SwellError("not_available", words, status=501) from None


def check_libraries(app: App) -> None:
    """SwellError not_available where an app reads what there is no library for here."""
    for config in sources(app):
        made(config)
