"""Makes the load, in a process of its own for each server, and counts what it costs itself."""
