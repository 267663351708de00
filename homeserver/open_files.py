"""How many files this process may have open: each connection of a client is one.

Linux gives a process two limits, of which it may raise the lower (usually 1,024) to the higher.
"""

from __future__ import annotations

import resource

import structlog

_log = structlog.get_logger()

#: Enough for any server that is one process; more would only be more to look through when one is started.
_WANTED = 65_536
#: With fewer than this, long polls alone may use them all up.
_FEW = 4096


def allow_many_open_files() -> int:
    """Raise the limit as far as is useful and permitted; the new one.  A low one is logged."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    allowed = soft if soft == resource.RLIM_INFINITY else max(soft, wanted)
    if allowed != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed != resource.RLIM_INFINITY and allowed < _FEW:
        _log.warning("few open files allowed", limit=allowed, fix="LimitNOFILE=65536 in the systemd unit")
    return allowed
