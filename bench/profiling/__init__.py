"""Where the processor time of a hot path goes: by thread, by part of the server and by module."""
