"""Which phases has a state machine that waits in real time? Not the one that makes a failed example smaller.

Each try of that waits once more for what does not come, a minute each, for five: whoever runs the tests sees a hang.
"""

from __future__ import annotations

from hypothesis import Phase

UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
