"""Every decision, pure: a snapshot and the time in, a value out."""
