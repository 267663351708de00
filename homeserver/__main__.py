"""``python -m homeserver`` is the ``inglenook`` command."""

from homeserver.cli import main

main()
