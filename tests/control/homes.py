"""What is backed up in tests? A state directory with an app, its source, and a volume with two files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from msgspec.structs import replace

from control.keepers import user
from swell.model.backup import DATABASE
from swell.model.call import Body, Call, Done, Work
from swell.model.events import AppDeployed
from swell.model.volume import Entry, Volume
from swell.model.workload import App
from swell.store.snapshot import StateFolder
from swell.store.sqlite import SqliteStore
from swell.store.volumes import VolumeFolder


def digest(body: bytes) -> str:
    return "sha256-" + hashlib.sha256(body).hexdigest()


class Home:
    """A state directory with an app, its source, and a volume with files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = SqliteStore(root / DATABASE)
        self.state = StateFolder(root, self.store.copy)
        self.put("blobs/sha256-0", b"")
        app = user("a")
        self.source = digest(b"source")
        app = _with_bundle(app, self.source)
        self.put(f"blobs/{self.source}", b"source")
        self.store.world.append([AppDeployed(1.0, app, "deploy")], durable=True)
        tree = {"a/b.txt": Entry(digest=digest(b"one"), size=3), "c": Entry(digest=digest(b"two"), size=3)}
        self.volume = Volume("default", "v", "vo-1", 1.0, version=4)
        VolumeFolder(root / "volumes").write(self.volume, tree)
        for body in (b"one", b"two"):
            self.put(f"volumes/default/files/{digest(body)}", body)
        self.store.volumes.put(self.volume)

    def put(self, name: str, body: bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(body)

    def large_result(self, body: bytes) -> str:
        """A call whose result is in a file: the file's name."""
        self.store.calls.add([Work(Call("fc-1", "default/a/f", "f", 1.0, 1.0), Body("x", b"1"))])
        self.store.calls.lease("default/a/f", 1, 1.0, 5, "r1-1", "default/a/f@rv-1")
        self.store.calls.finish([Done("fc-1", 5, 1.0, Body("x", digest=digest(body)))])
        self.put(f"results/{digest(body)}", body)
        return f"results/{digest(body)}"

    @property
    def clean(self) -> bool:
        return not (self.root / "backup").exists()


def _with_bundle(app: App, bundle: str) -> App:
    revision = replace(app.revisions[0], bundle=bundle)
    return replace(app, revisions=(revision,), workloads=(replace(app.workloads[0], revision=revision.id),))
