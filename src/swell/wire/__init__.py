"""What crosses a socket or the disk between Swell's own parts: schemas, frames, paths, header names."""
