"""Is a parameter one value, however it was given, and is what cannot be one refused in a sentence?"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.decide.variants import derived
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.variant import (
    DIGEST_LENGTH,
    KINDS,
    PARAMETERS_BYTES_MAX,
    Parameter,
    Value,
    base_of,
    chosen,
    is_variant,
    of_json,
    plain,
    read,
    text_of,
    typed,
    written,
)
from swell.model.workload import Entry, Method, Options, Revision, Variant, Workload

PLAINS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63) + 1, 2**63 - 1), st.booleans(), st.binary()
)
DECLARED = (Parameter("name", "str"), Parameter("size", "int", "3"), Parameter("raw", "bytes", ""))


@given(PLAINS)
def test_a_value_is_read_back_from_its_text_and_from_how_others_write_it(value: Any) -> None:
    kind = KINDS[type(value)]
    text = text_of("x", kind, value)
    assert plain(kind, text) == value
    assert type(plain(kind, text)) is type(value)
    assert read("x", kind, text) == text


@given(st.binary())
def test_bytes_are_read_from_either_alphabet_and_without_what_a_url_drops(value: bytes) -> None:
    text = text_of("x", "bytes", value)
    assert read("x", "bytes", base64.urlsafe_b64encode(value).decode().rstrip("=")) == text
    assert read("x", "bytes", text.replace("+", " ")) == text


@given(st.dictionaries(st.sampled_from("abcd"), PLAINS), st.dictionaries(st.sampled_from("abcd"), PLAINS))
def test_variants_have_one_name_when_they_are_one_and_two_when_they_are_two(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    def variant(given: dict[str, Any]) -> Variant:
        declared = [Parameter(name, KINDS[type(value)]) for name, value in given.items()]
        return Variant(typed("Model", declared, given))

    # In Python 1 is True; these are two values all the same.
    same = {n: (type(v), v) for n, v in one.items()} == {n: (type(v), v) for n, v in other.items()}
    assert (variant(one).name == variant(other).name) == same
    assert variant(dict(reversed(one.items()))).name == variant(one).name


def test_options_are_part_of_the_name() -> None:
    names = {Variant((), options).name for options in (Options(cpu=1), Options(cpu=2), Options(idle_s=1.0), Options())}
    assert len(names) == 4
    assert all(is_variant("Model" + name) and base_of("Model" + name) == "Model" for name in names)


@pytest.mark.parametrize(
    ("pairs", "code", "words"),
    [
        ([("nam", "x")], "unknown_parameter", "Model has no parameter 'nam'. Did you mean name?"),
        ([("other", "x")], "unknown_parameter", "It has name, size, raw."),
        ([("size", "4")], "missing_parameter", r"Model needs name: Model\(name=…\) in Python, --param name=…"),
        ([("name", "x"), ("size", "big")], "bad_parameter", 'size is of type int, and "big" is no whole number'),
        ([("name", "x"), ("size", "9" * 30)], "bad_parameter", "more than 64 bits"),
        ([("name", "x"), ("size", "9" * 50_000)], "bad_parameter", "no whole number"),
        ([("name", "x"), ("raw", "?")], "bad_parameter", "no base64"),
        ([("name", "x"), ("name", "y")], "bad_parameter", "given twice"),
        (
            [("name", "x" * PARAMETERS_BYTES_MAX)],
            "bad_parameter",
            "16384 is the most: give what is large as an argument",
        ),
    ],
)
def test_what_cannot_be_given_is_refused_with_the_way_out(pairs: Any, code: str, words: str) -> None:
    with pytest.raises(SwellError, match=words) as refused:
        chosen("Model", DECLARED, pairs)
    assert (refused.value.code, refused.value.status) == (code, 422)


def test_a_value_of_another_type_is_refused_wherever_it_comes_from() -> None:
    for wrong in ({"name": 1}, {"name": b"x"}, {"name": "x", "size": True}, {"name": "x", "size": "3"}):
        with pytest.raises(SwellError, match=r"is of type (str|int), and"):
            typed("Model", DECLARED, wrong)
    with pytest.raises(SwellError, match="size is of type int"):
        of_json("Model", DECLARED, {"name": "x", "size": "3"})
    assert of_json("Model", DECLARED, {"name": "x", "raw": "AAE="}) == typed(
        "Model", DECLARED, {"raw": b"\0\1", "name": "x"}
    )


def test_a_class_without_parameters_says_so() -> None:
    with pytest.raises(SwellError, match="It has none: what its methods take goes into the body"):
        chosen("Model", (), [("x", "1")])


def test_people_read_a_variant_as_they_would_write_it() -> None:
    values = (Value("a", "str", 'x"y'), Value("b", "bytes", "AAE="), Value("c", "int", "3"), Value("d", "bool", "true"))
    assert written(values) == 'a="x\\"y", b=<2 bytes>, c=3, d=True'
    assert len(written((Value("a", "str", "x" * 1000),))) < 70
    assert len(written((Value("a", "str", "\x1b" * 1000),))) < 70
    variant = Variant(values[2:3], Options(cpu=2.0, max_replicas=3, secrets=()))
    workload = Workload("default", "a", "Model" + variant.name, "rv-1", variant=variant)
    assert workload.written == "Model(c=3).with_options(cpu=2, secrets=…, max_containers=3)"
    timed = Variant(options=Options(idle_s=5.0, timeout_s=7.0, timeout_max_s=9.0))
    said = msgspec.structs.replace(workload, variant=timed).written
    assert said == "Model().with_options(scaledown_window=5, timeout=7, timeout_max=9)"
    assert workload.base == "Model"
    assert Workload("default", "a", "Model", "rv-1").written == "Model"


@given(st.text())
def test_what_a_caller_chose_cannot_steer_a_terminal_that_shows_it(text: str) -> None:
    assert written((Value("a", "str", text),)).isprintable()
    with pytest.raises(SwellError) as refused:
        read("a", "int", "x" + text)
    assert refused.value.message.isprintable()


def test_nobody_finds_other_values_with_the_same_digest() -> None:
    """Who may call chooses them: 12 digits would be found in hours, and others' calls would go to these."""
    bare = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-1", Entry("m", "Model", "cls", (Method("go"),)))
    variant = Variant((Value("name", "str", "x"),))
    made = derived(bare, variant)
    assert len(bare.id) == len("rv-") + 12
    assert len(made.id) == len("rv-") + DIGEST_LENGTH
    assert len(variant.name) == len("~") + DIGEST_LENGTH
