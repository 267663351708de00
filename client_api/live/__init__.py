"""Transports over which clients are told news instead of asking for them again and again."""
