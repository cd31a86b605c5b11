"""What runs inside a user's process: load, template, replica; and beside it, in `runner/`, what owns such processes."""
