"""One statement for many rows of several tables, as PostgreSQL is given it."""

from __future__ import annotations

import pytest

from homeserver.storage.dialect import postgres_rows_text


def test_statements_for_rows_become_one_over_arrays_for_postgres() -> None:
    text = postgres_rows_text(
        (
            ("UPDATE t SET a = $2 WHERE id = $1 AND a = $3", ("int8", "text", "text"), True),
            ("INSERT INTO u (x, y) VALUES ($1, $2) ON CONFLICT DO NOTHING", ("int8", "bytea"), False),
            ("DELETE FROM w WHERE x = $1", ("int8",), False),
        )
    )
    assert " ".join(text.split()) == (
        "WITH s0 AS (UPDATE t SET a = v.p2"
        " FROM unnest($1::int8[], $2::text[], $3::text[]) AS v (p1, p2, p3)"
        " WHERE id = v.p1 AND a = v.p3 RETURNING 1),"
        " s1 AS (INSERT INTO u (x, y) SELECT v.p1, v.p2"
        " FROM unnest($4::int8[], $5::bytea[]) AS v (p1, p2) ON CONFLICT DO NOTHING RETURNING 1),"
        " s2 AS (DELETE FROM w USING unnest($6::int8[]) AS v (p1) WHERE x = v.p1 RETURNING 1)"
        " SELECT 1, 1 / CASE WHEN (SELECT count(*) FROM s0) = cardinality($1) THEN 1 ELSE 0 END"
    )


def test_a_statement_that_takes_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="rows cannot be given"):
        postgres_rows_text((("INSERT INTO t (x) SELECT $1", ("int8",), False),))
