"""What does `python -m swell …` mean? The same as `swell …`, with that very interpreter."""

from __future__ import annotations

from swell.cli.main import main

main()
