"""What may a user ask for at most? The SDK says so where it is written, the API to whoever deploys."""

from __future__ import annotations

SECONDS_MAX = 366 * 86_400.0
"""A time longer than a year is a mistake; the event loop's timers could not hold it either."""
COUNT_MAX = 1_000_000
"""Inputs, replicas, retries."""
HTTP_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
"""Of a function that is a web endpoint."""
