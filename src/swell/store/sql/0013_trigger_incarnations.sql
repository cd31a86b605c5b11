-- Another one each time that a trigger comes to be: its calls are told from those of an earlier one of its name.
ALTER TABLE triggers ADD COLUMN incarnation TEXT NOT NULL DEFAULT '';
