"""What runs beside and inside user code: runner, template, replica."""
