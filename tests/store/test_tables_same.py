"""Are the tables the same in SQLite and in PostgreSQL? By the texts that make them, so that no server is needed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence

import pytest

from swell.store import schema
from swell.store.schema import Migration

TYPES = {"BIGINT": "INTEGER", "FLOAT8": "REAL", "BYTEA": "BLOB", "TEXT": "TEXT"}
ALONE = {"opened", "commits"}
"""Tables that PostgreSQL's state alone has."""

Columns = list[tuple[str, str, bool]]
"""Name, type as in SQLite, and whether there is always a value: in their order."""


def in_sqlite(steps: Sequence[Migration]) -> dict[str, Columns]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for step in steps:
        for statement in step.statements:
            connection.execute(statement)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    found = {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for (name,) in names.fetchall()}
    connection.close()
    return {name: [(row[1], row[2], bool(row[3] or row[5])) for row in rows] for name, rows in found.items()}


def in_postgres(texts: Sequence[str]) -> dict[str, Columns]:
    """What `CREATE TABLE` and `ALTER TABLE` say. A statement that it does not know fails it."""
    tables: dict[str, Columns] = {}
    for text in texts:
        plain = re.sub(r"--.*", "", text)
        for name, body in re.findall(r"\bCREATE TABLE (\w+) \((.*?)\)(?: WITH \([^)]*\))?;", plain, re.DOTALL):
            # Not at a comma in brackets: of a key of several columns.
            tables[name] = [column(part) for part in re.split(r",(?![^(]*\))", body) if not key(part)]
        for name, what in re.findall(r"\bALTER TABLE (\w+) (.*?);", plain, re.DOTALL):
            if dropped := re.fullmatch(r"DROP COLUMN (\w+)", what):
                tables[name] = [each for each in tables[name] if each[0] != dropped[1]]
            else:
                tables[name].append(column(what.removeprefix("ADD COLUMN ")))
        for name in re.findall(r"\bDROP TABLE (\w+);", plain):
            del tables[name]
    return tables


def key(part: str) -> bool:
    return part.split()[0] in ("PRIMARY", "UNIQUE")


def column(part: str) -> tuple[str, str, bool]:
    name, kind, *more = part.split()
    said = " ".join(more)
    return name, TYPES[kind], "NOT NULL" in said or "PRIMARY KEY" in said


def test_tables_and_columns_are_the_same() -> None:
    theirs = in_postgres([step.text for step in schema.migrations("sql_postgres")])
    assert {name: columns for name, columns in theirs.items() if name not in ALONE} == in_sqlite(schema.migrations())


def test_the_body_of_a_function_is_of_one_statement() -> None:
    made = "CREATE FUNCTION f() AS $$\nBEGIN\n    IF a THEN\n        b;\n    END IF;\nEND $$;\n"
    ends = ["CREATE TABLE a (b TEXT)", made.removesuffix(";\n"), "-- Why.\nDROP TABLE a"]
    assert Migration(1, "some", ";\n".join(ends) + ";\n").statements == ends


def test_the_newest_text_for_postgres_names_the_newest_for_sqlite() -> None:
    """A step that is added to one of the two alone is met here, also where its tables are the same by chance."""
    newest = schema.migrations()[-1]
    first_line = schema.migrations("sql_postgres")[-1].text.partition("\n")[0]
    assert f"sql/{newest.number:04}_{newest.name}.sql" in first_line


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("CREATE TABLE t (a BIGINT PRIMARY KEY, b BYTEA, PRIMARY KEY (a, b)) WITH (x = 1);", [("a", "INTEGER", True)]),
        ("CREATE TABLE t (a BIGINT, -- b\n c TEXT);\nALTER TABLE t DROP COLUMN c;", [("a", "INTEGER", False)]),
    ],
)
def test_the_texts_are_read(text: str, columns: Columns) -> None:
    assert in_postgres([text])["t"][:1] == columns
