"""What does it cost, measured beside a floor in the same run? `make bench`, or `python -m bench --help`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
APPS = Path(__file__).with_name("apps")

# The benchmarks run on the same private platform as the tests and the demo.
sys.path.append(str(ROOT / "tests"))
