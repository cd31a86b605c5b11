"""How is a method called as a model of the OpenAI API? A request's fields in, its documents or chunks out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, TypeVar

from swell.model.errors import SwellError
from swell.model.openai import Offer
from swell.model.workload import Method
from swell.runtime import results
from swell.runtime.arguments import Arguments, Given
from swell.runtime.call import Call, Callee
from swell.runtime.http import Exchange
from swell.runtime.results import Accepted, Answer
from swell.runtime.shared import ReplicaContext
from swell.runtime.stream import Format
from swell.wire import openai
from swell.wire.http import JSON

T = TypeVar("T")
_PLAIN = Accepted("", frames=False)


class Model(Callee):
    """One method as a model."""

    error_body = staticmethod(openai.error_body)

    def __init__(self, method: Method, function: Callable[..., Any], arguments: Arguments) -> None:
        super().__init__(method, function, arguments)
        assert method.openai is not None
        self.offer: Offer = method.openai
        self.takes = None if arguments.any_named else arguments.names

    def open(self, replica: ReplicaContext, exchange: Exchange) -> Call:
        return Ask(replica, exchange, self)


class Ask(Call):
    """One request to a model."""

    def __init__(self, replica: ReplicaContext, exchange: Exchange, model: Model) -> None:
        super().__init__(replica, exchange, model, _PLAIN)
        self._model = model
        self._asked = openai.Asked({})
        self._wording = openai.Wording(model.offer.api, model.offer.model, self.request, int(time.time()))

    def _read(self, body: bytes) -> Given:
        model = self._model
        asked = self._asked = openai.read(model.offer.api, body, model.name, model.takes)
        return model.arguments.bind(asked.arguments)

    def _refuse(self, error: SwellError) -> None:
        if error.code == "bad_arguments":
            # 422 is not what clients of this API expect of what does not fit.
            error.status = 400
        super()._refuse(error)

    def _encode(self, result: Any) -> Answer:
        model = self._model
        if model.offer.api == "embeddings":
            document = self._checked(lambda: openai.embeddings(model.offer.model, result, self._asked))
        else:
            self._tell(result)
            document = self._wording.whole()
        return results.value_answer(model.name, document, JSON)

    def _tell(self, value: Any) -> list[tuple[int, openai.Piece]]:
        return self._checked(lambda: self._wording.take(value))

    def _checked(self, word: Callable[[], T]) -> T:
        """What cannot be worded, whatever is wrong with it, is the method's fault."""
        try:
            return word()
        except SwellError as error:
            raise SwellError("bad_result", f"{self._model.name}: {error.message}.", status=500) from None
        except Exception as error:
            words = f"{self._model.name} gave what is no part of an answer: {type(error).__name__}: {error}."
            raise SwellError("bad_result", words, status=500) from None

    # -- streams ------------------------------------------------------------------------------

    def _format(self) -> Format:
        return Chunks(self)

    def _stream(self, result: Any) -> Iterator[Any] | None:
        """The parts of what was given, wherever there are some; all of it as one where a stream is asked for."""
        if isinstance(result, Iterator):
            return result
        return iter((result,)) if self._asked.stream else None

    def _stream_async(self, result: Any) -> AsyncIterator[Any] | None:
        if isinstance(result, AsyncIterator):
            return result
        items = self._stream(result)
        return None if items is None else _each(items)

    def _pump(self, items: Iterator[Any]) -> None:
        if self._asked.stream:
            super()._pump(items)
            return
        try:
            for item in items:
                self._tell(item)
        except SwellError as error:
            self._refuse(error)
        else:
            self._take({})
        finally:
            if isinstance(items, GeneratorType):
                items.close()

    async def _pump_async(self, items: AsyncIterator[Any]) -> None:
        if self._asked.stream:
            await super()._pump_async(items)
            return
        try:
            async for item in items:
                self._tell(item)
        except SwellError as error:
            self._refuse(error)
        else:
            self._take({})
        finally:
            if isinstance(items, AsyncGeneratorType):
                await items.aclose()

    def chunk(self, item: Any) -> dict[str, Any]:
        """An item of a stream as a document."""
        return self._wording.chunk(self._tell(item))

    def last(self) -> list[dict[str, Any]]:
        """The documents that a stream ends with."""
        return [*self._wording.last(self._asked.include_usage)]


class Chunks(Format):
    """A stream as clients of the API read it."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(_PLAIN)
        self._ask = ask

    def item(self, value: Any) -> bytes:
        return super().item(self._ask.chunk(value))

    def error(self, body: bytes) -> bytes:
        return b"data: %s\n\n" % body

    def end(self) -> bytes:
        return b"".join([*(Format.item(self, each) for each in self._ask.last()), openai.DONE])


async def _each(items: Iterator[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item
