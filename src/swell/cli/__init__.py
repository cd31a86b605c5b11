"""The command line: one file per noun or verb. Each command imports what it needs only when it runs."""
