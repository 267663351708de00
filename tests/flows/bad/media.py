"""Bad requests about media."""

from __future__ import annotations

from tests.flows.bad import BAD_QUERY, FORBIDDEN, MISSING, NOT_FOUND, Bad, bad

_V1 = "/_matrix/client/v1/media"
_OLD = "/_matrix/media/v3"
_NO_TOKEN = ("401 M_MISSING_TOKEN",)
_NOWHERE = ("502 M_UNKNOWN", "504 M_UNKNOWN", *NOT_FOUND)
_SIZE = "width=32&height=32"

MEDIA: tuple[Bad, ...] = (
    bad("nobody uploads", f"POST {_OLD}/upload", *_NO_TOKEN, body=b"x", by=""),
    bad(
        "a name of a thousand characters", f"POST {_OLD}/upload?filename={'n' * 1000}", *BAD_QUERY, body=b"x"
    ),
    bad("a name that is not UTF-8", f"POST {_OLD}/upload?filename=%ff", *BAD_QUERY, body=b"x"),
    bad("a name with a NUL", f"POST {_OLD}/upload?filename=%00", *BAD_QUERY, body=b"x"),
    bad("nobody makes an id", "POST /_matrix/media/v1/create", *_NO_TOKEN, by=""),
    bad("an id that nobody made", f"PUT {_OLD}/upload/$server_name/nothing", *NOT_FOUND, body=b"x"),
    bad("another server's id", f"PUT {_OLD}/upload/elsewhere.example/abc", *NOT_FOUND, body=b"x"),
    bad("an id that is none", f"PUT {_OLD}/upload/$server_name/a.b", *NOT_FOUND, body=b"x"),
    bad("nobody asks for the limits", f"GET {_V1}/config", *_NO_TOKEN, by=""),
    bad("nobody downloads", f"GET {_V1}/download/$server_name/abc", *_NO_TOKEN, by=""),
    bad("nobody downloads in the old way", f"GET {_OLD}/download/$server_name/abc", *NOT_FOUND, by=""),
    bad("nobody has us ask elsewhere", f"GET {_OLD}/download/elsewhere.example/abc", *NOT_FOUND, by=""),
    bad("what is not there", f"GET {_V1}/download/$server_name/abc", *NOT_FOUND),
    bad("with a name", f"GET {_V1}/download/$server_name/abc/name.txt", *NOT_FOUND),
    bad("a way out", f"GET {_V1}/download/$server_name/..%2f..%2fsigning.key", *NOT_FOUND),
    bad("a way out by the server's name", f"GET {_V1}/download/..%2f..%2f/signing", *NOT_FOUND),
    bad("a server that is not there", f"GET {_V1}/download/127.0.0.1:9/abc", *_NOWHERE),
    bad("a time that is none", f"GET {_V1}/download/$server_name/abc?timeout_ms=soon", *BAD_QUERY),
    bad("a time below zero", f"GET {_V1}/download/$server_name/abc?timeout_ms=-1", *BAD_QUERY),
    bad("no truth value", f"GET {_V1}/download/$server_name/abc?allow_remote=maybe", *BAD_QUERY),
    bad("a thumbnail of nothing", f"GET {_V1}/thumbnail/$server_name/abc?{_SIZE}", *NOT_FOUND),
    bad("a thumbnail without size", f"GET {_V1}/thumbnail/$server_name/abc", *MISSING),
    bad("without height", f"GET {_V1}/thumbnail/$server_name/abc?width=32", *MISSING),
    bad("of no width", f"GET {_V1}/thumbnail/$server_name/abc?width=0&height=32", *BAD_QUERY),
    bad("of a wide width", f"GET {_V1}/thumbnail/$server_name/abc?width=wide&height=32", *BAD_QUERY),
    bad("of an unknown method", f"GET {_V1}/thumbnail/$server_name/abc?{_SIZE}&method=squash", *BAD_QUERY),
    bad("perhaps moving", f"GET {_V1}/thumbnail/$server_name/abc?{_SIZE}&animated=perhaps", *BAD_QUERY),
    bad("nobody looks at pages", f"GET {_V1}/preview_url?url=http://example.org", *_NO_TOKEN, by=""),
    bad("nobody does in the old way", f"GET {_OLD}/preview_url?url=http://example.org", *_NO_TOKEN, by=""),
    bad("no page", f"GET {_V1}/preview_url", *MISSING),
    bad("what is no page", f"GET {_V1}/preview_url?url=example.org", *BAD_QUERY),
    bad("a file", f"GET {_V1}/preview_url?url=file:///etc/passwd", *BAD_QUERY),
    bad("with a password", f"GET {_V1}/preview_url?url=http://a:b@example.org", *BAD_QUERY),
    bad("at a time that is none", f"GET {_V1}/preview_url?url=http://a.example&ts=now", *BAD_QUERY),
    bad("inside", f"GET {_V1}/preview_url?url=http://127.0.0.1/", *_NOWHERE),
    bad("inside, at another port", f"GET {_V1}/preview_url?url=http://127.0.0.1:22/", *FORBIDDEN),
    bad("inside, of the cloud", f"GET {_V1}/preview_url?url=http://169.254.169.254/latest", *_NOWHERE),
)
