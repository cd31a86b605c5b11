-- Which version had the traffic when one was deployed (0 = not known), and whether all of it had.
ALTER TABLE versions ADD COLUMN over INTEGER NOT NULL DEFAULT 0;
ALTER TABLE versions ADD COLUMN over_served INTEGER NOT NULL DEFAULT 1;
