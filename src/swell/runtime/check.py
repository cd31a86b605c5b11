"""Can a revision's module be imported, and is its entry point there? Run once, when it is deployed.

Reads (revision, bundle folder, secrets) as msgpack from stdin; exits 0, or with the reason on stderr: 1 when the
module cannot be imported, LACKING_STATUS when its environment has not what it was deployed with.
"""

from __future__ import annotations

import os
import sys

import msgspec

from swell.model.errors import SwellError
from swell.model.secret import Revealed
from swell.model.workload import Revision
from swell.runtime import load, secrets
from swell.runtime.endpoint import has
from swell.wire.child import LACKING_STATUS, Secrets
from swell.wire.context import Inside, inside


def main() -> int:
    """Import and resolve only: asked for as a plain callable, a class is not instantiated."""
    told = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=tuple[Revision, str, tuple[Revealed, ...]])
    revision, folder, revealed = told
    if revealed:
        secrets.apply(Secrets(revealed))
    entry = msgspec.structs.replace(revision.entry, kind="function", methods=())
    # As in a replica: what a program does only where it is run by hand must not be done here.
    packages = revision.environment.packages
    inside[:] = [Inside(app="", replica="", gateway_url="", call_key="", packages=packages)]
    try:
        load.load(msgspec.structs.replace(revision, entry=entry), folder, snap=False)
    except SwellError as error:
        sys.stderr.write(load.failure_detail(error) + "\n")
        return 1
    if not has("fastapi") and any(method.web is not None and method.web.docs for method in revision.entry.methods):
        sys.stderr.write('docs=True needs FastAPI in the image: add .uv_pip_install("fastapi").\n')
        return LACKING_STATUS
    if any(method.tensors is not None for method in revision.entry.methods) and not has("numpy"):
        sys.stderr.write('Tensors need NumPy in the image: add .uv_pip_install("numpy").\n')
        return LACKING_STATUS
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without atexit: a thread that the module started must not keep this process.
    os._exit(status)
