"""Our server with a clock that is wrong: ``python wrong_clock.py SECONDS_AHEAD run --config FILE``."""

from __future__ import annotations

import sys

from homeserver.cli import main
from homeserver.clock import SystemClock


def be_ahead(seconds: int) -> None:
    """Every clock of this process tells a later time, or an earlier one."""
    right = SystemClock.now_ms

    def now_ms(self: SystemClock) -> int:
        return right(self) + seconds * 1000

    SystemClock.now_ms = now_ms  # type: ignore[method-assign]


if __name__ == "__main__":
    be_ahead(int(sys.argv.pop(1)))
    main()
