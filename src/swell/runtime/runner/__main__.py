"""`python -m swell.runtime.runner`: what a supervisor or an engine starts on a node."""

import sys

from swell.runtime.runner.node import main

if __name__ == "__main__":
    sys.exit(main())
