"""Which values do programs share by a key? A dict: by its name on the server, from a laptop or from any replica."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from swell.model.kv import BOUNDS
from swell.sdk import frames
from swell.sdk.bridge import drive, operation, stream_operation
from swell.sdk.marks import Given
from swell.sdk.refusal import refuse
from swell.sdk.shared import Ephemeral, Objects, Shared, check, check_id, pages, request_id
from swell.sdk.signatures import public
from swell.sdk.unavailable import stand_in
from swell.wire.kv import Count, DictKey, Entries, Found, NewEntries

Pairs = Mapping[Any, Any] | Iterable[tuple[Any, Any]]
"""What a dict is made of."""
_ABSENT: Any = object()


class Dict(Shared):
    """Values by their keys, shared by all who know its name: `swell.Dict.from_name("scores", create_if_missing=True)`.

    A key is the one that pickles to the same bytes: plain text and numbers are good keys; 1 and 1.0 are two.
    """

    kind = "dict"
    objects: DictObjects

    @staticmethod
    @public
    def from_name(
        name: str, *, environment_name: str | None = None, create_if_missing: bool = False, client: None = None
    ) -> Dict:
        """One that is there or, with `create_if_missing`, that is made when it is first used."""
        refuse(Given("Dict.from_name", locals().copy()))
        check(Dict, name, environment_name)
        return Dict(name, environment_name, create_if_missing)

    @staticmethod
    @public
    def from_id(object_id: str, client: None = None) -> Dict:
        """The one whose `object_id` that is, in this namespace."""
        refuse(Given("Dict.from_id", locals().copy()))
        check_id(Dict, object_id)
        return Dict(object_id, None)

    @staticmethod
    @public
    def ephemeral(client: None = None, environment_name: str | None = None) -> Ephemeral[Dict]:
        """`with swell.Dict.ephemeral() as d:` is one that is deleted at the end, and when this program ends."""
        refuse(Given("Dict.ephemeral", locals().copy()))
        return Ephemeral(Dict, environment_name)

    @operation
    async def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key; the default where there is none."""
        return await self._value(key, default)

    @operation
    async def contains(self, key: Any) -> bool:
        """Is there a value of this key?"""
        return await self._contains(key)

    @operation
    async def put(self, key: Any, value: Any, *, skip_if_exists: bool = False) -> bool:
        """Set the value of a key; on disk when it returns. False: it was there, and `skip_if_exists` left it as it
        was."""
        return await self._put([(key, value)], skip_if_exists) > 0

    @operation
    async def update(self, other: Pairs | None = None, /, **kwargs: Any) -> None:
        """Set the values of many keys: all at once, or in several requests where they are large."""
        await self._put([*dict(other or {}).items(), *kwargs.items()], False)

    @operation
    async def pop(self, key: Any, default: Any = _ABSENT) -> Any:
        """Take an entry out and return its value; KeyError where there is none, unless a default is given."""
        return await self._pop(key, default)

    @operation
    async def len(self) -> int:
        """How many entries there are."""
        return (await self._ask("GET", "/count", Count)).count

    @operation
    async def clear(self) -> None:
        """Take all entries out."""
        await self._ask("DELETE", "/entries", type(None))

    @stream_operation
    def keys(self) -> AsyncGenerator[Any, None]:
        """The keys, one by one, as they were put first."""
        return self._keys()

    @stream_operation
    def values(self) -> AsyncGenerator[Any, None]:
        """The values, one by one."""
        return self._values()

    @stream_operation
    def items(self) -> AsyncGenerator[tuple[Any, Any], None]:
        """Keys with their values, one by one."""
        return self._items()

    def __getitem__(self, key: Any) -> Any:
        with frames.hidden:
            found = drive(self._value(key, _ABSENT))
            if found is _ABSENT:
                raise KeyError(key)
            return found

    def __setitem__(self, key: Any, value: Any) -> None:
        with frames.hidden:
            drive(self._put([(key, value)], False))

    def __delitem__(self, key: Any) -> None:
        with frames.hidden:
            drive(self._pop(key, _ABSENT))

    def __contains__(self, key: Any) -> bool:
        with frames.hidden:
            return drive(self._contains(key))

    # Otherwise Python would try 0, 1, 2 and so on as keys.
    __iter__ = None

    # ------------------------------------------------------------------------------------------

    @operation
    async def _raw_get(self, key: bytes) -> bytes | None:
        """As it was pickled."""
        found = await self._ask("POST", "/get", Found, DictKey(key))
        return found.value if found.found else None

    @operation
    async def _raw_pop(self, key: bytes) -> Found:
        return await self._ask("POST", "/pop", Found, DictKey(key, request_id()))

    @stream_operation
    def _raw_items(self) -> AsyncGenerator[tuple[bytes, bytes], None]:
        return self._pages(True)

    async def _value(self, key: Any, default: Any) -> Any:
        found = await self._raw_get.start(self._key(key))
        return default if found is None else self._unpickled(f"The value of {_brief(key)}", found)

    async def _contains(self, key: Any) -> bool:
        return (await self._ask("POST", "/contains", Found, DictKey(self._key(key)))).found

    async def _put(self, entries: list[tuple[Any, Any]], missing: bool) -> int:
        sent = [(self._key(key), self._pickled(f"The value of {_brief(key)}", value)) for key, value in entries]
        added = 0
        for start, end in pages([len(key) + len(value) for key, value in sent], BOUNDS.request_bytes_max):
            new = NewEntries(tuple(sent[start:end]), missing, request_id())
            added += (await self._ask("POST", "/entries", Count, new)).count
        return added

    async def _pop(self, key: Any, default: Any) -> Any:
        found = await self._raw_pop.start(self._key(key))
        if found.found:
            return self._unpickled(f"The value of {_brief(key)}", found.value)
        if default is _ABSENT:
            raise KeyError(key)
        return default

    async def _pages(self, values: bool) -> AsyncGenerator[tuple[bytes, bytes], None]:
        after = 0
        while True:
            page = await self._ask("GET", f"/entries?after={after}&values={int(values)}", Entries)
            for entry in page.entries:
                yield entry
            after = page.after
            if not after:
                return

    async def _keys(self) -> AsyncGenerator[Any, None]:
        async with aclosing(self._pages(False)) as entries:
            async for key, _ in entries:
                yield self._unpickled("A key", key)

    async def _values(self) -> AsyncGenerator[Any, None]:
        async with aclosing(self._pages(True)) as entries:
            async for _, value in entries:
                yield self._unpickled("A value", value)

    async def _items(self) -> AsyncGenerator[tuple[Any, Any], None]:
        async with aclosing(self._pages(True)) as entries:
            async for key, value in entries:
                yield self._unpickled("A key", key), self._unpickled("A value", value)

    def _key(self, key: Any) -> bytes:
        return self._pickled("A key", key)


class DictObjects(Objects[Dict]):
    """Makes, lists and deletes dicts: `swell.Dict.objects`."""

    of = Dict


# As users write it.
DictObjects.__name__ = DictObjects.__qualname__ = "Dict.objects"
Dict.objects = DictObjects()
stand_in(
    Dict,
    {
        "create_deployed": "Dict.create_deployed() is called Dict.objects.create() now.",
        "delete": "Dict.delete() is called Dict.objects.delete() now.",
        "info": "Dicts are listed with `swell dict list`, and Dict.objects.list().",
        "lookup": "Dict.lookup() is called Dict.from_name() now.",
        "persisted": "Dict.persisted() is called Dict.from_name(name, create_if_missing=True) now.",
    },
)


def _brief(key: Any) -> str:
    shown = repr(key)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
