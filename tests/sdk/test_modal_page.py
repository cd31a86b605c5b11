"""Is docs/modal.md what the package does? `python tests/sdk/test_modal_page.py` writes its tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import swell
from swell.decide.powers import WAYS
from swell.model.errors import CODES
from swell.sdk import arguments, unavailable
from swell.sdk.bridge import Call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "modal.md"
TABLE = re.compile(r"<!-- table: (\w+) -->\n(.*?)<!-- end of table -->", re.DOTALL)
OWN = {
    *("__version__", "cached", "current_request", "isolated", "limit", "openai", "progress", "remaining_s", "tensors"),
    *("transform", "Event", "Files", "HttpEvents", "NatsStream", "Objects", "RedisStream", "Rows"),
    *("Source", "checkpoint_dir", "get_cluster_info", "stopping"),
}
"""Public names that are not in Modal's API."""

# fmt: off
CONVENTION = {
    "App", "Client", "CloudBucketMount", "Cls", "Cron", "Dict", "Environment", "Error", "FilePatternMatcher",
    "Function", "FunctionCall", "Image", "NetworkFileSystem", "Period", "Probe", "Proxy", "Queue", "Retries",
    "Sandbox", "SandboxSnapshot", "SchedulerPlacement", "Secret", "Server", "Tunnel", "Volume", "Workspace",
    "asgi_app", "batched", "billing", "clustered", "concurrent", "current_function_call_id", "current_input_id",
    "enable_output", "enter", "exception", "exit", "experimental", "fastapi_endpoint", "forward", "gpu",
    "interact", "is_local", "method", "parameter", "sessioned", "web_endpoint", "web_server", "wsgi_app",
}
"""Public names of Modal's API, of today."""
# fmt: on

DIFFERENCES: dict[str, str] = {
    "Cls": "`min_containers` is of what was deployed, not of each set of parameters; code in a replica cannot ask for "
    "other options: see [parameters.md](parameters.md)",
    "Cron": "`missed=` says what becomes of times at which the server was not there; see [triggers.md](triggers.md)",
    "Dict": "an entry expires after seven days in which it was neither put nor got; keys and values are pickled as "
    "arguments are, values of 10 MiB at most: see dicts-and-queues.md",
    "Error": "has a `.code`, a `.status`, the `.request` and, of arguments that do not fit, `.problems`",
    "Function": "`.spawn_map()` returns a FunctionCall; see Arguments from Python above",
    "FunctionCall": "results are kept for 7 days, and then `get` raises NotFoundError; no graph: "
    "see [calls.md](calls.md)",
    "Image": "describes a virtual environment; what needs a container is refused at deploy where the engine has none",
    "Period": "goes on as it was over a deploy that does not change it, and months are those of UTC; `missed=` as of "
    "Cron: see [triggers.md](triggers.md)",
    "Queue": "items of 1 MiB at most; a get that lost its answer is given the same items: see dicts-and-queues.md",
    "Retries": "the Python caller sends again; callers over HTTP do not",
    "Secret": "its newest version always; rotation reaches replicas that run. No `.objects`: see `swell secret`",
    "Volume": "commits when it is told to and when a replica ends in order, not in the background. No `.objects`: see "
    "`swell volume` and docs/volumes.md",
    "asgi_app": "at `{label}.localhost` and `/web/{label}/` of the server; a WebSocket has the function's `timeout=`, "
    "messages of 16 MiB, and no compression",
    "batched": "never waits while nothing runs; callers that leave arguments out are batched apart, so defaults hold",
    "clustered": "is swell.experimental.clustered, too; nodes= of @app.function says the same: see [jobs.md](jobs.md)",
    "concurrent": "of a class, it goes below @app.cls(), not on a method",
    "current_function_call_id": "None where the call came by no queue (`.spawn`, `.map`)",
    "current_input_id": "is the id of the request, for `swell why`",
    "enable_output": "writes on standard error",
    "enter": "snap=True: what it loads is forked from a template process, not read from a snapshot",
    "exception": "see Errors below",
    "experimental": "has clustered and get_cluster_info alone: see [jobs.md](jobs.md)",
    "fastapi_endpoint": "at `{label}.localhost` and `/web/{label}/` of the server",
    "web_endpoint": "the former name of fastapi_endpoint",
    "wsgi_app": "at `{label}.localhost` and `/web/{label}/` of the server",
    "web_server": "one replica per node has the port; without @concurrent it takes one request at a time",
}


_DEFAULT_LABEL = "works; the default is `APP--FUNCTION` or `APP--CLASS-METHOD`, in small letters, digits and dashes"
_GPU = "works, of whole devices; refused at deploy where no node has such: see [gpus.md](gpus.md)"
_OUR_TRIGGERS = "ours, Modal has none: see [triggers.md](triggers.md)"
_OURS = "ours, Modal has none: see [calls.md](calls.md#long-functions)"
_QUEUE = "ours, Modal has none: see [calls.md](calls.md#how-a-call-is-queued)"
_JOBS = "ours, Modal has none: see [jobs.md](jobs.md)"
_DISK = "works; looked for at deploy, relative paths from the current directory of who deploys"
_PLACE = (
    "differs: relative to the folder of the program, as `data/x.json`. It is the working directory (unless "
    "`workdir` says otherwise): `open('data/x.json')`. Of absolute paths only `/root/…` is taken, for that same "
    "folder, and noted at deploy: a replica has no `/root` of its own, and opening it by that path finds nothing"
)
REMARKS: dict[str, dict[str, str]] = {
    "App.cls": {"gpu": _GPU, "timeout_max": _OURS},
    "App.function": {"gpu": _GPU, "timeout_max": _OURS, "trigger": _OUR_TRIGGERS, "nodes": _JOBS, "min_nodes": _JOBS},
    "Cron": {"missed": _OUR_TRIGGERS},
    "Period": {"missed": _OUR_TRIGGERS},
    "Cls.with_options": {"timeout_max": _OURS},
    "Function.with_options": {"timeout_max": _OURS},
    "Function.with_queueing": dict.fromkeys(("priority", "delay", "idempotency_key", "timeout"), _QUEUE),
    "Image.add_local_dir": {"local_path": _DISK, "remote_path": _PLACE},
    "Image.add_local_file": {"local_path": _DISK, "remote_path": _PLACE},
    "Image.uv_pip_install": {"requirements": _DISK},
    "asgi_app": {"label": _DEFAULT_LABEL},
    "wsgi_app": {"label": _DEFAULT_LABEL},
    "fastapi_endpoint": {"label": _DEFAULT_LABEL},
    "web_server": {"label": _DEFAULT_LABEL},
}
"""Callable → argument that works → what is to be known of it."""
CONTAINED = (
    "taken where it is written; refused at deploy where the engine has no containers, as today's local one, with what "
    "to do instead"
)
"""What is to be known of what only a container can hold."""


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def head(*cells: str) -> str:
    return row(*cells) + "|" + "---|" * len(cells) + "\n"


def status(message: str) -> str:
    return "not yet" if " yet" in message else "refused"


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def names() -> str:
    told = head("name", "state", "how, or what instead")
    for name in sorted({*CONVENTION, *unavailable.NOUNS, *unavailable.FUNCTIONS}, key=str.lower):
        if name in swell.__all__:
            told += row(f"`{name}`", "differs" if name in DIFFERENCES else "works", DIFFERENCES.get(name, ""))
        else:
            message = unavailable.NOUNS.get(name) or unavailable.FUNCTIONS[name]
            told += row(f"`{name}`", status(message), message)
    return told


def methods() -> str:
    told = head("method", "state", "which, or what instead")
    for owner in (swell.App, swell.Cls, swell.Function, swell.FunctionCall, swell.Image):
        found = {name: value for base in owner.__mro__[:-1] for name, value in vars(base).items() if name[0] != "_"}
        absent = {name: str(value.__doc__) for name, value in found.items() if is_stand_in(value)}
        is_method = {
            name: isinstance(value, Call) or (hasattr(value, "__get__") and not isinstance(value, property))
            for name, value in found.items()
        }
        there = {name for name in found if is_method[name] and name not in absent}
        contained = there & set(WAYS) if owner is swell.Image else set()
        told += row(f"`{owner.__name__}`", "works", code(sorted(there - contained)))
        if contained:
            told += row(f"`{owner.__name__}`", "at deploy", f"{code(sorted(contained))}: {CONTAINED}")
        for name, message in sorted(absent.items()):
            told += row(f"`{owner.__name__}.{name}`", status(message), message)
    return told


def is_stand_in(value: object) -> bool:
    """Does the method only say that it is not there?"""
    return isinstance(value, staticmethod) and value.__func__.__module__ == unavailable.__name__


def arguments_() -> str:
    told = head("callable", "argument", "state, and what instead")
    for callable in sorted({*arguments.EFFECTS, *arguments.REFUSED}, key=str.lower):
        remarks = REMARKS.get(callable, {})
        plain = [name for name in arguments.EFFECTS.get(callable, {}) if name not in remarks]
        if plain:
            contained = callable.removeprefix("Image.") in WAYS
            told += row(f"`{callable}`", code(plain), "at deploy: see Methods" if contained else "works")
        for name, remark in remarks.items():
            told += row(f"`{callable}`", f"`{name}`", remark)
        for name, why in arguments.REFUSED.get(callable, {}).items():
            told += row(f"`{callable}`", f"`{name}`", f"refused: {why}")
    return told


def errors() -> str:
    told = head("swell.exception", "codes, or what to write instead")
    kinds = {kind.__name__: code(codes) for kind, codes in CODES.items()}
    kinds |= {"Error": "all others", "InputCancellation": "raised inside a function whose caller left"}
    for name in sorted([*swell.exception.__all__, *swell.exception.ABSENT]):
        told += row(f"`{name}`", kinds[name] if name in kinds else f"not there: {swell.exception.ABSENT[name]}")
    return told


WRITERS = {"names": names, "methods": methods, "arguments": arguments_, "errors": errors}


def written(page: str) -> str:
    """The page with its tables as they are to be."""
    return TABLE.sub(lambda m: f"<!-- table: {m[1]} -->\n{WRITERS[m[1]]()}<!-- end of table -->", page)


def test_the_page_says_what_the_package_does() -> None:
    page = PAGE.read_text()
    assert [found[1] for found in TABLE.finditer(page)] == list(WRITERS)
    assert page == written(page), "write it with: python tests/sdk/test_modal_page.py"


def test_every_name_of_modals_api_has_an_answer() -> None:
    assert {*swell.__all__, *unavailable.NOUNS, *unavailable.FUNCTIONS} >= CONVENTION
    assert set(swell.__all__) - OWN <= CONVENTION
    assert set(DIFFERENCES) <= set(swell.__all__)


def test_what_is_remarked_on_works() -> None:
    assert all(remarks.keys() <= arguments.EFFECTS[callable].keys() for callable, remarks in REMARKS.items())


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
