"""What does a unit cost here? Prices from the state directory's `prices.toml`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from swell.model.errors import SwellError
from swell.model.near import did_you_mean
from swell.model.request import Prices

NAMES = Prices.__struct_fields__


def read_prices(path: Path) -> Prices:
    """Those in the file, and the defaults for what it leaves out; all of them where there is no file.

    Raises SwellError for what is no price: a misspelt one would have its default without a word.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return Prices()
    except OSError as error:
        raise _unfit(path, f"it cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _unfit(path, f"it is not TOML: {error}.") from None
    for name, value in found.items():
        if name not in NAMES:
            raise _unfit(path, f"there is no price called {name!r}.{did_you_mean(name, NAMES)}")
        if not _is_price(value):
            raise _unfit(path, f"{name} is {value!r}; it must be a number of USD that is not below 0.")
    return Prices(**{name: float(value) for name, value in found.items()})


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _unfit(path: Path, why: str) -> SwellError:
    return SwellError("bad_prices", f"{path}: {why} Mend it, or remove the file for the defaults.")
