"""A seeded cluster: the real planner and loop over a fake engine and clock."""
