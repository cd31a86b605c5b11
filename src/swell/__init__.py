"""Swell: functions, model services, jobs and pipelines on capacity that swells with demand and falls to zero."""
