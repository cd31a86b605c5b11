"""Why can this body not be read? What keeps it from being JSON, in words that name the place and the way out."""

from __future__ import annotations

import math
import re
import sys

from swell.model.errors import SwellError

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""An escape in a text, the two of a pair together."""
_NUMBER = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)', re.DOTALL)
"""A number that is in no text."""
_CONSTANT = re.compile(rb"-?(?:NaN|Infinity)|None|True|False|undefined")
_BYTE = re.compile(r"^JSON is malformed: (?P<said>.*) \(byte (?P<at>\d+)\)$", re.DOTALL)
_MARKS = (
    (b"\x1f\x8b", "it looks compressed (gzip): send it as it is"),
    (b"\x28\xb5\x2f\xfd", "it looks compressed (zstd): send it as it is"),
    (b"\xef\xbb\xbf", "it begins with a byte order mark: leave that out"),
    (b"\xff\xfe", "it looks like UTF-16: send UTF-8"),
    (b"\xfe\xff", "it looks like UTF-16: send UTF-8"),
)
_JSON_FOR = {b"None": "null", b"True": "true", b"False": "false"}
SHOWN_MAX = 40
"""Characters of a number that are shown."""


def must_be_plain(content_encoding: bytes) -> None:
    """Raises SwellError 415 where a body is compressed: nothing here reads such."""
    if content_encoding.lower() not in (b"", b"identity"):
        coding = content_encoding[:SHOWN_MAX].decode("latin-1")
        raise SwellError("bad_body", f"The body is compressed ({coding!r}): send it as it is.", status=415)


def why_not_json(body: bytes, error: Exception) -> str:
    """What is said of a body that msgspec did not read as JSON, without a full stop. `error`: what it said."""
    for mark, words in _MARKS:
        if body.startswith(mark):
            return words
    if isinstance(error, UnicodeDecodeError):
        return _no_utf8(body, error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    said = str(error)
    if not body.strip():
        return "it is empty"
    if "surrogate" in said or said == "Input data was truncated":
        half = next((each for each in _ESCAPE.finditer(body) if each["half"]), None)
        if half is not None:
            escape = half[0].decode()
            return f"the escape {escape} at byte {half.start()} is half of a character: send both halves, or neither"
    if said.startswith(("Number out of range", "Integer value out of range")):
        return _too_large(body) or said
    return _at(body, said)


def _at(body: bytes, said: str) -> str:
    """What is wrong at the byte that is named, where it is something that people often send."""
    match = _BYTE.match(said)
    if match is None:
        return "it ends too soon" if said == "Input data was truncated" else said
    at = int(match["at"])
    for start in (max(at - 1, 0), at):
        constant = _CONSTANT.match(body, start)
        if constant is not None:
            word, instead = constant[0].decode(), _JSON_FOR.get(constant[0], "null")
            return f"{word} at byte {start} is not JSON: send {instead}"
    if body[at : at + 1] == b"'":
        return f"{match['said']} (byte {at}): texts and keys stand in double quotes"
    return f"{match['said']} (byte {at})"


def _no_utf8(body: bytes, error: UnicodeDecodeError) -> str:
    """msgspec counts from the start of the text that it is in."""
    try:
        body.decode()
    except UnicodeDecodeError as whole:
        error = whole
    return f"byte {error.start} is not UTF-8 ({error.reason})"


def _too_large(body: bytes) -> str:
    digits_max = sys.get_int_max_str_digits()
    for each in _NUMBER.finditer(body):
        number = each["number"]
        if number is None:
            continue
        if number.removeprefix(b"-").isdigit():
            bound = f"integers have up to {digits_max} digits" if 0 < digits_max < len(number.strip(b"-")) else ""
        else:
            bound = "they go up to 1.8e308" if math.isinf(float(number)) else ""
        if bound:
            shown = number[:SHOWN_MAX].decode() + ("…" if len(number) > SHOWN_MAX else "")
            return f"the number {shown} at byte {each.start()} is out of range: {bound}"
    return ""
