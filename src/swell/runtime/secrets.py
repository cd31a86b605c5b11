"""How does a process come to its secrets? Over its channel, once it runs, into os.environ.

What is set after a process was exec'ed is not in its /proc/PID/environ. What it starts itself inherits them, as any
environment variable, and then they are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from swell.model.secret import Revealed
from swell.runtime import limits
from swell.wire.child import Secrets

FOLDER = "SWELL_SECRETS_DIR"
"""Where each variable is a file, SECRET/KEY, of this replica alone."""

_set: set[str] = set()
"""Variables that secrets have set in this process."""


def apply(message: Secrets) -> None:
    """Have these values, and no earlier ones."""
    limits.hide_memory()
    values = variables(message.secrets)
    if message.folder:
        values[FOLDER] = message.folder
    for name in _set - values.keys():
        os.environ.pop(name, None)
    os.environ.update(values)
    _set.clear()
    _set.update(values)


def variables(secrets: Sequence[Revealed]) -> dict[str, str]:
    """Of a variable that several have, the last one counts."""
    return {name: value for secret in secrets for name, value in secret.values}
