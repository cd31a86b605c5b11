"""Are rows of PostgreSQL's COPY read as they are, however they are cut; and does a file of SQLite take and give all?"""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.store.postgres_copy import Coming
from swell.store.sqlite import SqliteStore
from swell.store.sqlite_rows import Rows, filling, reading

HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(4)
KINDS = ("INTEGER", "REAL", "TEXT", "BLOB")
VALUES = (
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.binary(),
)
rows = st.lists(st.tuples(*(st.none() | each for each in VALUES)), max_size=6)


def sent(rows: list[tuple[Any, ...]], extension: bytes = b"") -> bytes:
    """As PostgreSQL does."""

    def field(value: Any) -> bytes:
        match value:
            case None:
                return struct.pack(">i", -1)
            case int():
                body = struct.pack(">q", value)
            case float():
                body = struct.pack(">d", value)
            case str():
                body = value.encode()
            case _:
                body = value
        return struct.pack(">i", len(body)) + body

    told = (struct.pack(">h", len(row)) + b"".join(map(field, row)) for row in rows)
    return HEAD + struct.pack(">i", len(extension)) + extension + b"".join(told) + struct.pack(">h", -1)


@given(rows, st.lists(st.integers(0, 400), max_size=9), st.binary(max_size=5))
@example([(1, 1.0, "a", b"b")], list(range(70)), b"")
def test_rows_are_read_however_they_are_cut(rows: list[tuple[Any, ...]], cuts: list[int], extension: bytes) -> None:
    data, coming, found, last = sent(rows, extension), Coming(KINDS), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += coming.rows(data[last:cut])
        last = max(last, cut)
    coming.check_whole()
    assert found == rows


@given(rows, st.integers(1, 400))
def test_what_is_cut_off_is_not_taken_for_all(rows: list[tuple[Any, ...]], less: int) -> None:
    coming = Coming(KINDS)
    found = coming.rows(sent(rows)[:-less])
    assert found == rows[: len(found)]
    with pytest.raises(ConnectionError):
        coming.check_whole()


def test_what_is_no_copy_is_refused() -> None:
    with pytest.raises(ConnectionError):
        Coming(KINDS).rows(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_file_that_is_filled_is_made_as_any_other(tmp_path: Path) -> None:
    """With its indices and triggers; of what these do nothing is done meanwhile."""

    def made(path: Path) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()

    SqliteStore(tmp_path / "plain").close()
    with filling(tmp_path / "filled") as rows:
        tables = {table.name: table for table in rows.tables}
        rows.add(tables["collections"], [("di-1", "dict", "default", "d", 7, b"body")])
        rows.add(tables["dict_entries"], [(5, "di-1", b"key", 1e11, b"value")])
        rows.set_numbers({"dict_entries": 9, "call_ends": 4})
    assert (tmp_path / "filled").stat().st_mode & 0o777 == 0o600
    assert made(tmp_path / "filled") == made(tmp_path / "plain")
    with reading(tmp_path / "filled") as rows:
        assert list(rows.of(tables["collections"])) == [("di-1", "dict", "default", "d", 7, b"body")]
        assert rows.numbers() == {"events": 0, "dict_entries": 9, "queue_items": 0, "call_ends": 4}
    with closing(sqlite3.connect(tmp_path / "filled")) as connection:
        connection.execute(
            "INSERT INTO dict_entries (collection, key, expires_at, value) VALUES ('di-1', x'', 1e11, x'')"
        )
        assert connection.execute("SELECT max(number), size FROM dict_entries, collections").fetchall() == [(10, 8)]


def test_a_text_where_bytes_belong_comes_out_as_bytes(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "control.db")), closing(sqlite3.connect(tmp_path / "control.db")) as connection:
        connection.execute("INSERT INTO triggers (key, schedule, began_at, fired_to) VALUES ('k', '', 1, 0)")
        connection.commit()
        rows = Rows(connection)
        (table,) = (table for table in rows.tables if table.name == "triggers")
        ((key, schedule, began_at, *_),) = rows.of(table)
    assert (key, schedule, began_at) == ("k", b"", 1.0)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_bytes(b"mine")
    with pytest.raises(SwellError), filling(tmp_path / "control.db"):
        pass
    assert (tmp_path / "control.db").read_bytes() == b"mine"


def test_a_file_of_another_schema_is_not_read(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "control.db").close()
    with closing(sqlite3.connect(tmp_path / "control.db")) as connection:
        connection.execute("DELETE FROM migrations WHERE number > 1")
        connection.commit()
    with pytest.raises(SwellError, match="another schema"), reading(tmp_path / "control.db"):
        pass
