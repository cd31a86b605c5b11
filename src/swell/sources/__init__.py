"""Which adapter is a source's? Each is imported with the first source of its kind, and with it the library it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from swell.model.errors import SwellError
from swell.model.source import Files, NatsStream, RedisStream, Rows, SourceConfig
from swell.model.source_ports import Source


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
