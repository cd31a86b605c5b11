"""How is a method called as a model of the Open Inference Protocol V2? Tensors in, tensors out; the rest is a call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from swell.model.errors import SwellError
from swell.model.tensors import Tensors
from swell.model.workload import Method
from swell.runtime.arguments import Arguments, Given
from swell.runtime.call import Call, Callee
from swell.runtime.http import Exchange
from swell.runtime.request import Request
from swell.runtime.results import Accepted, Answer
from swell.runtime.shared import ReplicaContext
from swell.runtime.tensors import Misfit, array_of, array_out_of, named, output_of
from swell.wire import inference
from swell.wire.http import lower

_HEADER_LENGTH = lower(inference.HEADER_LENGTH)
_PARAMETERS = "parameters"
"""An argument of this name is given all parameters of a request."""


class TakesArrays(Callee):
    """One method as it is called by JSON or from Python: there, too, it gets arrays."""

    def __init__(self, method: Method, function: Callable[..., Any], arguments: Arguments) -> None:
        super().__init__(method, function, arguments)
        assert method.tensors is not None
        self.tensors: Tensors = method.tensors

    def read(self, request: Request, body: bytes) -> Given:
        args, kwargs = super().read(request, body)
        wrong = []
        for each in self.tensors.inputs:
            if isinstance(kwargs.get(each.name), list | int | float | bool | str | bytes):
                try:
                    kwargs[each.name] = array_out_of(kwargs[each.name], each, self.name)
                except Misfit as misfit:
                    wrong.append((each.name, str(misfit)))
        if wrong:
            said = "; ".join(f"argument {name!r} {words}" for name, words in wrong)
            error = SwellError("bad_arguments", f"{said[:1].upper()}{said[1:]}.", status=422)
            error.problems = tuple((f"$.{name}", words) for name, words in wrong)
            raise error
        return args, kwargs


class Model(Callee):
    """One method as a model."""

    error_body = staticmethod(inference.error_body)

    def __init__(
        self, method: Method, function: Callable[..., Any], arguments: Arguments, model: str, version: str
    ) -> None:
        super().__init__(method, function, arguments)
        assert method.tensors is not None
        self.tensors: Tensors = method.tensors
        self.model = model
        self.version = version

    def open(self, replica: ReplicaContext, exchange: Exchange) -> Call:
        return Infer(replica, exchange, self)

    def stream(self, result: Any) -> Iterator[Any] | None:  # noqa: ARG002 — an answer is one document
        return None

    def stream_async(self, result: Any) -> AsyncIterator[Any] | None:  # noqa: ARG002
        return None


class Infer(Call):
    """One call of a model."""

    def __init__(self, replica: ReplicaContext, exchange: Exchange, model: Model) -> None:
        super().__init__(replica, exchange, model, Accepted("", frames=False))
        self._model = model
        self._asked: inference.Inference | None = None

    def _read(self, body: bytes) -> Given:
        header = self._exchange.request.header
        asked = self._asked = inference.read(body, header(_HEADER_LENGTH), header(b"content-encoding"))
        return self._model.arguments.bind(arguments(self._model, asked))

    def _encode(self, result: Any) -> Answer:
        model, asked = self._model, self._asked
        assert asked is not None
        declared = {each.name: each for each in model.tensors.outputs}
        try:
            found = named(result, model.tensors.outputs)
        except Misfit as misfit:
            raise _bad_result(model, f"{misfit}") from None
        _check_wanted(model, asked.wanted, [*found])
        outputs = []
        for name in asked.wanted or found:
            try:
                outputs.append(output_of(name, found[name], declared.get(name), asked.is_binary(name)))
            except Misfit as misfit:
                raise _bad_result(model, f"output {name!r} {misfit}") from None
        return Answer(200, *inference.write(model.model, model.version, asked.id, outputs))


def arguments(model: Model, asked: inference.Inference) -> dict[str, Any]:
    """What the function is given by name: its tensors, and parameters of the request that it has arguments for."""
    wanted = {each.name: each for each in model.tensors.inputs}
    given = {each.name: each for each in asked.inputs}
    wrong = [f"there is no tensor {name!r}" for name in given if name not in wanted]
    wrong += [
        f"tensor {each.name!r} is missing" for each in wanted.values() if not (each.optional or each.name in given)
    ]
    found: dict[str, Any] = {}
    for name in wanted.keys() & given.keys():
        try:
            found[name] = array_of(given[name], wanted[name], model.name)
        except Misfit as misfit:
            wrong.append(f"tensor {name!r} {misfit}")
    if wrong:
        said = "; ".join(wrong)
        raise SwellError("bad_arguments", f"{said[:1].upper()}{said[1:]}.", status=422)
    if model.tensors.outputs:
        _check_wanted(model, asked.wanted, [each.name for each in model.tensors.outputs])
    names = model.arguments.names - wanted.keys()
    found |= {name: value for name, value in asked.parameters.items() if name in names}
    return found | {_PARAMETERS: asked.parameters} if _PARAMETERS in names else found


def _check_wanted(model: Model, wanted: tuple[str, ...], there: list[str]) -> None:
    unknown = [name for name in wanted if name not in there]
    if unknown:
        said = f"There is no output {unknown[0]!r}; {model.name} gives {', '.join(there) or 'none'}."
        raise SwellError("bad_arguments", said, status=422)


def _bad_result(model: Model, said: str) -> SwellError:
    return SwellError("bad_result", f"{model.name}: {said}.", status=500)
