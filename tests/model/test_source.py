"""Are sources that make no sense refused in words, and are patterns of paths read as in a shell?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import InvalidError
from swell.model.source import (
    Files,
    NatsStream,
    Objects,
    RedisStream,
    Rows,
    SourceConfig,
    bucket_of,
    check,
    folder_pattern,
    path_pattern,
)

GOOD: list[SourceConfig] = [
    Files("/data/inbox"),
    Files("/data", ("*.csv", "**/*.json"), settle_s=0.1),
    NatsStream("nats://user@host:4222", "orders", "swell", "orders.*.new"),
    Objects("s3://inbox"),
    Objects("s3://in.box/a b//?#/", ".csv", "new", endpoint_url="https://store:9000", access_key_id="AK"),
    RedisStream("redis://host:6379/0", "orders", "swell"),
    RedisStream("unix:///run/redis.sock", "orders", "swell"),
    Rows("sqlite:///data/x.db", "SELECT * FROM orders", "id"),
    Rows("postgresql://user@host/db", "SELECT *\nFROM orders", "at", "id", channel="orders"),
    Rows("postgresql:///db?host=/run/postgresql", "SELECT 1 AS id", "id"),
]
QUERY = "SELECT * FROM orders"
BAD: list[tuple[SourceConfig, str]] = [
    (Files("inbox"), "folder is an absolute path"),
    (Files("/data", ()), "patterns says which files"),
    (Files("/data", ("/etc/*",)), "leads out of the folder"),
    (Files("/data", ("a/../../b",)), "leads out of the folder"),
    (Files("/data", settle_s=0.0), "settle_s is at least 0.05, not 0"),
    (Files("/data", rescan_s=float("nan")), "rescan_s is a number of seconds, not nan"),
    (Files("/data\0"), "folder has a character in it that cannot be shown"),
    (NatsStream("http://host", "orders", "swell"), "begins with nats:// or tls://, not 'http://host'"),
    (NatsStream("nats://host", "orders.new", "swell"), "stream cannot be 'orders.new'"),
    (NatsStream("nats://host", "orders", ""), "consumer is missing"),
    (NatsStream("nats://host", "orders", "swell", ack_wait_s=0.5), "ack_wait_s is at least 1, not 0.5"),
    (NatsStream("nats://", "orders", "swell"), "names no host"),
    (Objects("http://inbox"), "The url begins with s3://, not 'http://inbox'"),
    (Objects("s3:///in/"), "The url names no bucket"),
    (Objects("s3://in box/"), "The url names no bucket"),
    (Objects("s3://inbox", every_s=0), "every_s is at least 0.05, not 0"),
    (Objects("s3://inbox", late_s=0), "late_s is at least 1, not 0"),
    (Objects("s3://inbox", late_s=1e6), "late_s is 604800 at most, a week, not 1e+06"),
    (Objects("s3://inbox", endpoint_url="store:9000"), "The endpoint_url is http://host:port, or https://"),
    (Objects("s3://inbox", endpoint_url="http://:9000"), "The endpoint_url is http://host:port, or https://"),
    (Objects("s3://inbox", endpoint_url="http://x:y"), "The endpoint_url cannot be read"),
    (RedisStream("redis://[host", "orders", "swell"), "The url cannot be read"),
    (RedisStream("unix://run/redis.sock", "orders", "swell"), "The url is of a file, as unix:///path/of/it"),
    (RedisStream("redis://host", "orders", " "), "group is missing"),
    (Rows("mysql://host/db", QUERY, "id"), "begins with sqlite:// or postgresql:// or postgres://"),
    (Rows("sqlite:///", QUERY, "id"), "The url is of a file"),
    (Rows("sqlite:///x.db", QUERY, ""), "watermark is missing"),
    (Rows("sqlite:///x.db", QUERY, "id", channel="orders"), "Only PostgreSQL has a channel"),
    (Rows("postgresql://host/db", QUERY, "id", every_s=0), "every_s is at least 0.05, not 0"),
    (Rows("postgresql://host/db", QUERY, "id", settle_s=-1.0), "settle_s is a number of seconds, not -1.0"),
]


@pytest.mark.parametrize("config", GOOD, ids=repr)
def test_what_makes_sense_is_taken(config: SourceConfig) -> None:
    assert check(config) is None


@pytest.mark.parametrize(("config", "words"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_makes_none_is_refused_in_words(config: SourceConfig, words: str) -> None:
    with pytest.raises(InvalidError) as refused:
        check(config)
    assert refused.value.code == "bad_option"
    assert words in refused.value.message


@pytest.mark.parametrize(
    "config",
    [Objects("s3://me:hunter2@inbox/in/"), Objects("s3://inbox", endpoint_url="http://me:hunter2@store:9000")],
    ids=["url", "endpoint_url"],
)
def test_a_key_in_a_url_is_refused_and_not_shown(config: Objects) -> None:
    with pytest.raises(InvalidError, match="access_key_id") as refused:
        check(config)
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "parts"),
    [("s3://b", ("b", "")), ("s3://b/", ("b", "")), ("s3://b/x//y?#", ("b", "x//y?#")), ("s3://b//x", ("b", "/x"))],
)
def test_what_keys_begin_with_is_taken_as_it_is(url: str, parts: tuple[str, str]) -> None:
    assert bucket_of(url) == parts


@pytest.mark.parametrize("url", ["nats://user:hunter2@host", "postgresql://host/db?user=a&password=hunter2"])
def test_a_password_is_refused_and_not_shown(url: str) -> None:
    config = NatsStream(url, "orders", "swell") if url.startswith("nats") else Rows(url, QUERY, "id")
    with pytest.raises(InvalidError, match="password") as refused:
        check(config)
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "x/y/a.csv", True),
        ("**/*.csv", ".x/a.csv", False),
        ("**/*", ".part", False),
        ("**/.*", "x/.part", True),
        ("a/**", "a/b/c", True),
        ("a/**", "b/c", False),
        ("**", "a/b", True),
        ("*.csv", "x/a.csv", False),
        ("a?.csv", "ab.csv", True),
        ("a?.csv", "a/.csv", False),
        ("[a].csv", "[a].csv", True),
        ("[a].csv", "a.csv", False),
        ("*", "a\nb", True),
    ],
)
def test_a_pattern_is_read_as_in_a_shell(pattern: str, path: str, matches: bool) -> None:
    assert (path_pattern(pattern).fullmatch(path) is not None) is matches


names = st.text(st.characters(exclude_characters="/*?", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)


@given(parts=st.lists(names.filter(lambda name: not name.startswith(".")), min_size=1, max_size=4))
def test_a_path_is_matched_by_itself_and_by_all(parts: list[str]) -> None:
    path = "/".join(parts)
    for pattern in (path, "**/*", "**", "/".join("*" * len(parts)), f"**/{parts[-1]}"):
        assert path_pattern(pattern).fullmatch(path)
    assert not path_pattern("/".join("*" * (len(parts) + 1))).fullmatch(path)


parts = st.lists(st.sampled_from(["**", "*", "a", "a*", ".git", "b?"]), min_size=1, max_size=4)
folders = st.lists(st.sampled_from(["a", "ab", "b", "bc", ".git", ".x"]), min_size=1, max_size=4)


@given(parts, folders)
def test_what_is_matched_is_in_folders_that_are_looked_into(parts: list[str], path: list[str]) -> None:
    pattern = "/".join(parts)
    if path_pattern(pattern).fullmatch("/".join(path)):
        for depth in range(len(path)):
            assert folder_pattern(pattern).fullmatch("".join(f"{each}/" for each in path[:depth]))


@pytest.mark.parametrize(
    ("pattern", "into", "not_into"),
    [
        ("*.csv", [""], ["a/", "lost+found/"]),
        ("a/*.csv", ["", "a/"], ["b/", "a/b/"]),
        ("a/**", ["", "a/", "a/b/c/"], ["b/", "a/.b/"]),
        ("**/*", ["", "a/b/"], [".x/", "a/.x/"]),
        ("**/.git/*", ["", "a/", ".git/", "a/.git/"], [".x/", "a/.git/b/"]),
        ("*/b/c.csv", ["", "a/", "a/b/"], ["a/c/", ".a/"]),
    ],
)
def test_folders_are_looked_into_where_there_may_be_something(
    pattern: str, into: list[str], not_into: list[str]
) -> None:
    made = folder_pattern(pattern)
    assert all(made.fullmatch(folder) for folder in into)
    assert not any(made.fullmatch(folder) for folder in not_into)
