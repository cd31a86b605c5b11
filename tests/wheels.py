"""Wheels made for a test: a folder of them stands for a package index."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from pathlib import Path


def make_wheel(folder: Path, name: str, version: str, files: dict[str, bytes], tag: str = "py3-none-any") -> None:
    """A wheel with these files; `{name}-{version}.dist-info` is made unless it is among them."""
    info = f"{name}-{version}.dist-info"
    files = dict(files)
    files.setdefault(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode())
    files.setdefault(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode())
    record = ""
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(data)}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as archive:
        for path, data in {**files, f"{info}/RECORD": (record + f"{info}/RECORD,,\n").encode()}.items():
            archive.writestr(path, data)


def repack(folder: Path, name: str) -> None:
    """The wheel an installed distribution came from, made again from its files."""
    found = importlib.metadata.distribution(name)
    files = {}
    for path in found.files or ():
        where = Path(str(path.locate()))
        if where.suffix != ".pyc" and path.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            files[str(path)] = where.read_bytes()
    wheel = next(data for path, data in files.items() if path.endswith("dist-info/WHEEL")).decode()
    tag = next(line.split(": ")[1] for line in wheel.splitlines() if line.startswith("Tag: "))
    make_wheel(folder, name, found.version, files, tag)
