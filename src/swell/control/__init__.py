"""The loop: observe, plan, commit, drive."""
