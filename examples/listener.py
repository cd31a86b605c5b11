"""A process that is not Python: whatever listens on the port gets the requests.

`swell deploy examples/listener.py`, then `curl http://127.0.0.1:8470/web/listener/any/path`.
"""

import subprocess
from pathlib import Path

import swell

HERE = Path(__file__).parent
PORT = 8479

image = swell.Image.debian_slim().add_local_file(HERE / "listener.pl", "listener.pl")
app = swell.App("listener", image=image)


@app.function()
@swell.concurrent(max_inputs=10)
@swell.web_server(PORT, startup_timeout=10, label="listener")
def serve() -> None:
    """Starts it; Swell waits until the port is open."""
    subprocess.Popen(["perl", str(HERE / "listener.pl"), str(PORT)])
