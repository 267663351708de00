"""One SQL text for two engines: what has to be rewritten, as plain functions over text.

Queries are written with ``$1`` parameters and, for lists, ``IN $1``; schema files
are written for SQLite.  Parameters and types inside string literals and quoted
names are left alone.  This does not parse SQL, and so does not translate functions or syntax: a
query has to be in the subset both engines share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

#: Query texts are constants of the program, so every one of them fits.
_CACHED_TEXTS = 8192

_PIECE = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<comment>--[^\n]*|/\*.*?\*/)
      | (?P<end>;)
      | (?P<plain>[^'"/;-]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_PARAMETER = re.compile(r"\$(\d+)")
_IN_LIST = re.compile(r"\b(NOT\s+)?IN\s+\$1(?!\d)", re.IGNORECASE)
#: Where a statement takes its rows from, by its first word: what stands there, and what comes instead.
_ROWS_GO = {
    "INSERT": (re.compile(r"VALUES \(([^()]*)\)"), "SELECT"),
    "UPDATE": (re.compile(r"\bWHERE\b"), "FROM"),
    "DELETE": (re.compile(r"\bWHERE\b"), "USING"),
}
_SPACE = re.compile(r"\s+")
_TRIGGER = re.compile(r"\s*CREATE TRIGGER\b", re.IGNORECASE)
_END = re.compile(r"\bEND\s*$", re.IGNORECASE)

_TYPES = {"INTEGER": "BIGINT", "BLOB": "BYTEA", "REAL": "DOUBLE PRECISION"}
_TYPE = re.compile(r"\b(?:INTEGER|BLOB|REAL)\b")
#: SQLite numbers the rows of such a table itself.
_ROW_NUMBER = re.compile(r"\bINTEGER PRIMARY KEY\b")
_WITHOUT_ROWID = re.compile(r"\s*\bWITHOUT ROWID\b")
_TEXT = re.compile(r"\bTEXT\b")


@lru_cache(maxsize=_CACHED_TEXTS)
def sqlite_text(sql: str) -> str:
    """A query as SQLite takes it: ``$1`` becomes ``?1``."""
    return "".join(text if kind == "quoted" else _PARAMETER.sub(r"?\1", text) for kind, text in _pieces(sql))


@lru_cache(maxsize=_CACHED_TEXTS)
def sqlite_in_text(sql: str) -> str:
    """A ``fetch_in`` query for SQLite, whose first parameter is a JSON array."""
    return sqlite_text(_IN_LIST.sub(r"\1IN (SELECT value FROM json_each($1))", _require_list(sql)))


@lru_cache(maxsize=_CACHED_TEXTS)
def postgres_in_text(sql: str) -> str:
    """A ``fetch_in`` query for PostgreSQL, whose first parameter is an array.

    The array's type is that of the column it is compared with.
    """

    def comparison(match: re.Match[str]) -> str:
        return "<> ALL($1)" if match[1] else "= ANY($1)"

    return _IN_LIST.sub(comparison, _require_list(sql))


@lru_cache(maxsize=_CACHED_TEXTS)
def postgres_rows_text(statements: tuple[tuple[str, tuple[str, ...], bool], ...]) -> str:
    """Statements for rows (``rows.py``) as one for PostgreSQL, whose parameters are arrays: of columns.

    Each is given with the types of its parameters and whether each row has to change something;
    where one does not, the statement as a whole fails, by a division by zero.
    """
    parts, checks, offset = [], ["1"], 0
    for number, (sql, types, each_changes) in enumerate(statements):
        parts.append(f"s{number} AS ({_over_arrays(sql, types, offset)} RETURNING 1)")
        if each_changes:
            all_did = f"(SELECT count(*) FROM s{number}) = cardinality(${offset + 1})"
            checks.append(f"1 / CASE WHEN {all_did} THEN 1 ELSE 0 END")
        offset += len(types)
    return f"WITH {', '.join(parts)} SELECT {', '.join(checks)}"


@lru_cache(maxsize=_CACHED_TEXTS)
def postgres_row_text(statements: tuple[tuple[str, int, bool], ...]) -> str:
    """The same for one row each, whose parameters are plain values: a good deal cheaper than arrays of one.

    Each is given with the number of its parameters and whether the row has to change something.
    """
    parts, checks, offset = [], ["1"], 0
    for number, (sql, parameters, each_changes) in enumerate(statements):
        parts.append(f"s{number} AS ({_shifted(sql, offset)} RETURNING 1)")
        if each_changes:
            checks.append(f"1 / CASE WHEN EXISTS (SELECT 1 FROM s{number}) THEN 1 ELSE 0 END")
        offset += parameters
    return f"WITH {', '.join(parts)} SELECT {', '.join(checks)}"


def _shifted(sql: str, offset: int) -> str:
    return _PARAMETER.sub(lambda match: f"${int(match[1]) + offset}", sql)


def _over_arrays(sql: str, types: Sequence[str], offset: int) -> str:
    arrays = ", ".join(f"${offset + number}::{type_}[]" for number, type_ in enumerate(types, 1))
    source = f"unnest({arrays}) AS v ({', '.join(f'p{number}' for number in range(1, len(types) + 1))})"
    where, word = _ROWS_GO[sql.split(None, 1)[0]]
    match = where.search(sql)
    if match is None:
        raise ValueError(f"rows cannot be given to {sql}")
    columns = _PARAMETER.sub(r"v.p\1", sql[: match.start()]), _PARAMETER.sub(r"v.p\1", sql[match.end() :])
    if word == "SELECT":
        values = _PARAMETER.sub(r"v.p\1", match[1])
        return f"{columns[0]} SELECT {values} FROM {source} {columns[1]}"
    return f"{columns[0]} {word} {source} WHERE {columns[1]}"


def split_statements(script: str) -> list[str]:
    """The statements of a script, without comments, spaces made single, in order.

    A trigger goes up to its ``END``; no other body may have semicolons of its own.
    """
    statements: list[str] = []
    current = ""
    for kind, text in _pieces(script + ";"):
        if kind == "end":
            if _TRIGGER.match(current) and not _END.search(current):
                current += ";"
            elif statement := current.strip():
                statements.append(statement)
                current = ""
        elif kind == "quoted":
            current += text
        else:
            # A comment separates words just as a space does.
            spaced = " " if kind == "comment" else _SPACE.sub(" ", text)
            current += spaced.lstrip() if current.endswith(" ") else spaced
    return statements


def postgres_schema(statement: str) -> str:
    """A schema statement (as ``split_statements`` gives it) for PostgreSQL.

    Types are recognised in capitals only, so a column may be named ``text``.
    Text compares byte by byte, as it does in SQLite.
    """
    defines_columns = statement.upper().startswith(("CREATE TABLE", "ALTER TABLE"))
    return "".join(
        text if kind == "quoted" else _postgres_types(text, defines_columns=defines_columns)
        for kind, text in _pieces(statement)
    )


def _postgres_types(text: str, *, defines_columns: bool) -> str:
    text = _ROW_NUMBER.sub("BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", text)
    text = _TYPE.sub(lambda match: _TYPES[match[0]], text)
    text = _WITHOUT_ROWID.sub("", text)
    return _TEXT.sub('TEXT COLLATE "C"', text) if defines_columns else text


def _require_list(sql: str) -> str:
    if not _IN_LIST.search(sql):
        raise ValueError(f"fetch_in needs 'IN $1' in its query: {sql}")
    return sql


def _pieces(sql: str) -> Iterator[tuple[str, str]]:
    """``(kind, text)`` for each piece: ``quoted``, ``comment``, ``end`` or ``plain``."""
    for match in _PIECE.finditer(sql):
        yield str(match.lastgroup), match[0]
