"""Where do these tests find what they share?"""

from __future__ import annotations

import sys
from pathlib import Path

for _folder in (Path(__file__).parent, Path(__file__).parent.parent / "conformance"):
    sys.path.insert(0, str(_folder))
