"""What does it cost, measured beside a floor in the same run? `make bench`, or `python -m bench --help`."""
