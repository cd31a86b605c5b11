"""Words one by one, as a language model would send them.

`swell deploy examples/stream.py`, then watch them come as server-sent events:
curl -N http://127.0.0.1:8470/call/stream/words -d '{"text": "to be or not to be"}'
"""

import asyncio
from collections.abc import AsyncIterator

import swell

app = swell.App("stream")


@app.function()
@swell.concurrent(max_inputs=100)
async def words(text: str, pause_s: float = 0.05) -> AsyncIterator[str]:
    """Each word of `text`, one every `pause_s`. A caller that leaves stops it where it is."""
    for word in text.split():
        yield word
        await asyncio.sleep(pause_s)


@app.local_entrypoint()
def main(text: str = "the quick brown fox") -> None:
    """`swell run examples/stream.py --text "…"`"""
    for word in words.remote_gen(text):
        print(word, flush=True)
