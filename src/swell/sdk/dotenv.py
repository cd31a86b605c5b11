"""What do the lines of a .env file say? `KEY=VALUE`, quoted or not, with `export` in front or not, and comments."""

from __future__ import annotations

import re

from swell.model.errors import SwellError

_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<key>[A-Za-z_][A-Za-z0-9_.]*)\s*=[ \t]*
    (?: "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>[^']*)' | (?P<plain>[^\r\n]*?) )
    [ \t]*(?:(?:(?<=[ \t])|(?<=["']))\#[^\r\n]*)?(?=[\r\n]|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"\s*(?:#[^\r\n]*)?(?=[\r\n]|\Z)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def parse(text: str, name: str) -> dict[str, str]:
    """Variables by name. A quoted value may go over lines; in double quotes a backslash escapes. `name`: of the file,
    for a line that cannot be read, of which no more than its number is told."""
    values: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _LINE.match(text, at)
        if found is not None:
            values[found["key"]] = _value(found)
        else:
            found = _BLANK.match(text, at)
        if found is None:
            line = text.count("\n", 0, at) + 1
            raise SwellError("bad_argument", f"{name}: line {line} is no KEY=VALUE.")
        end = text.find("\n", found.end())
        at = end + 1 if end >= 0 else len(text)
    return values


def _value(found: re.Match[str]) -> str:
    if found["double"] is not None:
        return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), found["double"], flags=re.DOTALL)
    return found["single"] if found["single"] is not None else found["plain"]
