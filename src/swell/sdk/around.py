"""May this stand around a method: hooks before and after it, answers that are kept?"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from swell.model.errors import SwellError
from swell.sdk.marks import Marks


def check_transform(name: str, raw: Callable[..., Any], marked: Marks, is_class: bool) -> None:
    """What goes in and out of a call can be made into something else; of models and web applications others say it."""
    if marked.hook or marked.web is not None:
        words = "@transform goes on what is called; a web endpoint reads and writes by itself"
        raise SwellError("bad_function", f"{name}: {words}.")
    if is_class and not marked.remote:
        raise SwellError("bad_class", f"{name} has @swell.transform() and cannot be called: add @swell.method().")
    if marked.tensors is not None:
        words = "the Open Inference Protocol says what goes in and out of a model of @tensors: keep one of them"
        raise SwellError("bad_function", f"{name}: {words}.")
    if marked.openai is not None and marked.batch is not None:
        raise SwellError("bad_function", f"{name} is @batched and a model of @openai: it has no @transform beside it.")
    if inspect.iscoroutinefunction(raw) or inspect.isasyncgenfunction(raw):
        return
    for argument, hook in (("before", marked.before), ("after", marked.after)):
        if inspect.iscoroutinefunction(getattr(hook, "__func__", hook)):
            words = f"@transform({argument}=…) is asynchronous and {name} is not: make both of a kind"
            raise SwellError("bad_function", f"{words}.")


def check_cached(name: str, marked: Marks, is_class: bool, streams: bool) -> None:
    """What is kept is one whole answer to a call."""
    if marked.hook or marked.web is not None:
        words = "@cached keeps what calls are answered; a web endpoint tells caches in front of it by Cache-Control"
        raise SwellError("bad_function", f"{name}: {words}.")
    if is_class and not marked.remote:
        raise SwellError("bad_class", f"{name} has @swell.cached() and cannot be called: add @swell.method().")
    if streams and marked.openai is None:
        raise SwellError("bad_function", f"{name} is a generator, and @cached keeps no streams: return a list.")
