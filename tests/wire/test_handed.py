"""Is what a process is given whole, and hidden where it must be?"""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.model.urls import shown
from swell.wire.handed import handed, taken
from swell.wire.settings import load

passwords = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=8).map(
    lambda text: f"geheim{text}geheim"
)
stores = st.just("") | passwords.map(lambda password: f"postgresql://swell:{password}@db/swell")


@given(stores, stores, st.booleans())
def test_a_process_takes_what_was_handed_and_its_words_have_no_store(store: str, former: str, whole: bool) -> None:
    before = {"PATH": "/bin", "PGPASSWORD": "geheim", **({"SWELL_STORE": former} if former else {})}
    word, environ = handed({"port": 1, "store": store}, before, whole)
    assert json.loads(word) == {"port": 1, "store": ""}
    # What is no password to a state of ours is the user's, as it was.
    password = {"PGPASSWORD": "geheim"} if whole or not store else {}
    assert environ == {"PATH": "/bin", **password, **({"SWELL_STORE": store} if store and whole else {})}
    assert taken(word, environ) == {"port": 1, "store": store if whole else ""}


@given(passwords, st.sampled_from(["{}", "swell:{}", "swell:x:{}"]), st.booleans())
def test_an_address_is_shown_without_its_password(password: str, user: str, in_query: bool) -> None:
    quoted = "".join(f"%{ord(each):02x}" if not each.isalnum() else each for each in password)
    if in_query:
        url = f"postgresql://swell@db:5432/swell?sslmode=require&password={quoted}&x=1"
        assert shown(url) == "postgresql://swell@db:5432/swell?sslmode=require"
    else:
        url = f"postgresql://swell:{quoted}@db:5432,other/swell"
        assert shown(url) == "postgresql://swell@db:5432,other/swell"


@given(
    passwords,
    st.sampled_from(
        [
            "postgresql://swell:{}@db/swell",
            "postgresql://swell:{}@db:5432,other/swell?sslmode=require",
            "postgresql://swell@db/swell?sslmode=require&password={}",
            "postgresql://db/swell?user=swell&password={}&sslmode=require",
            "postgresql:///swell?PASSWORD={0}&host=/run/{0}",
            "postgresql://swell:{0}@db/swell?sslpassword={0}",
            "swell:{}://db@db/swell",
        ]
    ),
)
@example("?p@ss&word/", "postgresql://swell:{}@db/swell")
@example("se@cret", "postgresql://db/swell?user=swell&password={}&sslmode=require")
def test_no_password_is_shown_however_it_was_written(password: str, url: str) -> None:
    """Not quoted, say: what it then is an address of is another matter."""
    said = shown(url.format(password))
    assert password not in said
    assert "geheim" not in said
    assert "cret" not in said
    assert "word" not in said


@pytest.mark.parametrize("url", ["postgresql://swell:geheim", "postgresql://swell:geheim/swell", "swell:geheim@db"])
def test_what_is_where_a_port_belongs_is_not_shown(url: str) -> None:
    assert "geheim" not in shown(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://swell@db:5432,other:5433/swell?sslmode=require&target_session_attrs=primary",
        "postgres://swell@[::1]:5432/swell",
        "postgresql://swell@/swell?host=/run/postgresql",
        "postgresql://swell@%2Frun%2Fpostgresql/swell",
        "postgresql:///swell",
    ],
)
def test_what_has_no_password_is_shown_whole(url: str) -> None:
    assert shown(url) == url
    assert load({"store": url}, {}).store == url


def test_a_password_is_no_flag() -> None:
    with pytest.raises(SwellError) as caught:
        load({"store": "postgresql://swell:geheim@db/swell"}, {})
    assert (caught.value.code, "geheim" in caught.value.message) == ("bad_setting", False)
    assert load({"store": "postgresql://swell@db/swell"}, {}).store == "postgresql://swell@db/swell"
    url = "postgresql://swell:geheim@db/swell"
    assert load({}, {"SWELL_STORE": url}).store == url


@pytest.mark.parametrize("store", ["mysql://db", "control.db", "postgres:db"])
def test_what_no_store_is_is_refused(store: str) -> None:
    with pytest.raises(SwellError) as caught:
        load({}, {"SWELL_STORE": store})
    assert caught.value.code == "bad_setting"
    assert store not in caught.value.message
