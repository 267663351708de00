"""The few web pages that people see in a browser, where their client sent them or an email did.

Every value is escaped, and the headers let a page load nothing but what it is made of.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from homeserver import aiohttp_web as web
from homeserver.errors import MatrixError

if TYPE_CHECKING:
    from jinja2 import Environment

_MAX_FIELDS: Final = 20


def page(
    template: str,
    values: Mapping[str, Any] = MappingProxyType({}),
    *,
    status: int = 200,
    frames: str | None = None,
    leads_away: bool = False,
) -> web.Response:
    """A page from its template; ``frames`` is a URL whose site it may show frames of.

    A form on a page that ``leads_away`` may end at another site: browsers hold ``form-action`` against
    the redirects that follow, too.
    """
    nonce = secrets.token_urlsafe(16)
    html = _templates().get_template(template).render({**values, "nonce": nonce})
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic'; style-src 'nonce-{nonce}';"
        " base-uri 'none'; frame-ancestors 'none'"
    )
    if not leads_away:
        policy += "; form-action 'self'"
    if frames is not None:
        parts = urlsplit(frames)
        site = f"{parts.scheme}://{parts.netloc}"
        policy += f"; frame-src {site} https://www.google.com; connect-src {site} https://www.google.com"
        policy = policy.replace(f"style-src 'nonce-{nonce}'", "style-src 'unsafe-inline'")
    headers = {
        "Content-Security-Policy": policy,
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return web.Response(text=html, status=status, content_type="text/html", headers=headers)


@cache
def _templates() -> Environment:
    # Loaded for the first page: most servers never show one.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def refusal_page(error: MatrixError) -> web.Response:
    """What went wrong, for a person to read."""
    return page("refused.html", {"message": error.message}, status=error.status)


def form_fields(body: bytes) -> dict[str, str]:
    """The fields of a form that was sent; the first of each name, none where it is not a form."""
    try:
        given = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in given.items() if "\x00" not in values[0]}
