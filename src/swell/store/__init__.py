"""Where state is kept, behind the store ports."""
