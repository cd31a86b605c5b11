"""Tries to get out as soon as it is imported: at deploy, where it is checked, and in the template. Not on the machine
of whoever deploys it, which imports it too."""

from __future__ import annotations

import os

import swell

MARK = "/usr/swell-escaped-at-import"
SAW: list[str] = []

app = swell.App("at-import")

if not swell.is_local():
    try:
        with open(MARK, "w") as file:
            file.write("out")
        SAW.append("written")
    except OSError as error:
        SAW.append(str(error))
    print("imported", os.getpid() < 10, os.getuid(), *SAW)


@app.function()
@swell.isolated()
def saw() -> tuple[int, list[str]]:
    return os.getuid(), SAW
