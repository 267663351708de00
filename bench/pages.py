"""Puts the kept results into the pages of the documentation, so that no figure is copied by hand.

A page has a marked place for each table; ``rewrite`` fills those for which there are results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.growth.axes import FLAT_OPERATIONS, OPERATIONS
from bench.targets import TARGETS

Json = Mapping[str, Any]

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/benchmarks.md", "docs/performance.md")
#: The marked places: ``<!-- NAME: begin, made by `make bench-pages` -->`` to ``<!-- NAME: end -->``.
_PLACE = re.compile(
    r"(?P<begin><!-- (?P<name>[\w-]+): begin, made by `make bench-pages` -->\n)"
    r".*?(?P<end><!-- (?P=name): end -->)",
    re.DOTALL,
)
_ENGINES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
#: Modules of a profile that are named.
_MODULES = 8


def rewrite(page: Path, results: Path) -> list[str]:
    """Fill a page's places; the names of those that there are no results for."""
    missing: list[str] = []

    def filled(place: re.Match[str]) -> str:
        try:
            text = table(place["name"], results)
        except FileNotFoundError:
            missing.append(place["name"])
            return place[0]
        return f"{place['begin']}\n{text}\n{place['end']}"

    page.write_text(_PLACE.sub(filled, page.read_text()))
    return missing


def table(name: str, results: Path) -> str:
    """The text for a place: ``all``, ``highlights``, ``growth``, ``soak-ENGINE`` or ``profile-ENGINE-KEY``.

    Raises ``FileNotFoundError`` where that was not measured.
    """
    kind, _, rest = name.partition("-")
    lines = _TABLES[kind](rest, results)
    return "".join(f"{line}\n" for line in lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _read(file: Path) -> Any:
    return json.loads(file.read_text())


def _measured(results: Path) -> Iterator[Any]:
    """What was kept of each engine: of a full run, else of a quick one.  Raises ``FileNotFoundError``."""
    found = False
    for engine in _ENGINES:
        files = [results / f"{size}-{engine}.json" for size in ("full", "quick")]
        for file in [file for file in files if file.exists()][:1]:
            found = True
            yield _read(file)
    if not found:
        raise FileNotFoundError(results / "full-sqlite.json")


def _all(_: str, results: Path) -> Iterator[str]:
    for number, kept in enumerate(_measured(results)):
        if number:
            yield ""
        yield f"### On {_ENGINES[kept['engine']]}"
        yield ""
        yield f"{' and '.join(kept['servers'])}, Python {kept['machine']['python']}, {kept['at'][:10]},"
        yield f"{kept['machine']['processors']} processors, {kept['size']['name']} size."
        yield ""
        yield _row("", *kept["servers"], "times better", "least – most", "aimed at")
        yield _row("---", *["---"] * 5)
        for figure in kept["figures"]:
            yield _figure_row(figure)


def _figure_row(figure: Json) -> str:
    ours, theirs = (f"{_number(value)} {figure['unit']}" for value in figure["values"])
    compared = figure["compared"]
    aim = "" if figure["target"] is None else f"{figure['target']:g}{'' if figure['reached'] else ', missed'}"
    title = figure["title"]
    # What belongs to the line above is indented in the terminal.
    named = f"… {title.strip()}" if title.startswith(" ") else title
    spread = f"{_number(compared['least'])} – {_number(compared['most'])}"
    return _row(named, ours, theirs, _number(compared["times"]), spread, aim)


def _highlights(_: str, results: Path) -> Iterator[str]:
    measured = list(_measured(results))
    yield _row("times better than Synapse, on", *map(_named, measured))
    yield _row("---", *["---"] * len(measured))
    by_key = [{figure["key"]: figure for figure in kept["figures"]} for kept in measured]
    titles = _whole_titles(measured[0]["figures"])
    for key in TARGETS:
        if key in titles:
            yield _row(titles[key], *(_times(figures.get(key)) for figures in by_key))


def _named(kept: Json) -> str:
    size = kept["size"]["name"]
    return _ENGINES[kept["engine"]] + ("" if size == "full" else f" ({size} size)")


def _whole_titles(figures: Sequence[Json]) -> dict[str, str]:
    """Titles by key; of what belongs to the line above, together with that one's."""
    titles: dict[str, str] = {}
    above = ""
    for figure in figures:
        title = figure["title"]
        if title.startswith(" "):
            titles[figure["key"]] = f"{above}, {title.strip()}"
        else:
            above = titles[figure["key"]] = title
    return titles


def _times(figure: Json | None) -> str:
    return "" if figure is None else _number(figure["compared"]["times"])


def _growth(_: str, results: Path) -> Iterator[str]:
    files = sorted(results.glob("growth-*.json"))
    if not files:
        raise FileNotFoundError(results / "growth-*.json")
    yield _row("processor time of", "along", "from – to", "first", "last", "dearest / first", "")
    yield _row(*["---"] * 7)
    for file in files:
        curve = _read(file)
        for operation, of_software in curve["costs"].items():
            costs = of_software["inglenook"]
            found = curve["verdicts"][operation]
            yield _row(
                OPERATIONS[operation],
                curve["axis"]["title"],
                f"{costs[0]['point']:,} – {costs[-1]['point']:,}",
                *(f"{costs[at]['cpu_ms']:.2f} ms" for at in (0, -1)),
                f"{found['dearest_by_first']:.2f}",
                found["verdict"] if operation in FLAT_OPERATIONS else "",
            )


def _soak(engine: str, results: Path) -> Iterator[str]:
    kept = _read(results / f"soak-inglenook-{engine}.json")
    yield f"{kept['intervals'][-1]['at'] / 60:.0f} minutes on {_ENGINES[engine]}:"
    yield ""
    yield _row("", "middle third", "last third", "times", "at most", "")
    yield _row(*["---"] * 6)
    for each in kept["verdicts"]:
        values = (f"{each[part]:.1f} {each['unit']}" for part in ("middle", "last"))
        times = f"{each['last'] / each['middle']:.2f}"
        yield _row(each["what"], *values, times, f"{each['allowed']}", "flat" if each["flat"] else "grows")


def _profile(which: str, results: Path) -> Iterator[str]:
    engine, _, key = which.partition("-")
    by_key = {each["scenario"]: each for each in _read(results / f"profile-{engine}.json")}
    if key not in by_key:
        raise FileNotFoundError(key)
    found = by_key[key]
    yield f"{1000 * found['cpu_ms']:,.0f} µs on {_ENGINES[engine]}, of which"
    yield ""
    for part, most in (("threads", 3), ("parts", 7), ("modules", _MODULES)):
        yield f"- by {part[:-1]}: {_shares(found[part], most)}"


def _shares(cpu_ms: Mapping[str, float], most: int) -> str:
    largest: Sequence[tuple[str, float]] = sorted(cpu_ms.items(), key=lambda each: -each[1])[:most]
    return ", ".join(f"{name} {1000 * value:,.0f}" for name, value in largest)


_TABLES: dict[str, Callable[[str, Path], Iterator[str]]] = {
    "all": _all,
    "highlights": _highlights,
    "growth": _growth,
    "soak": _soak,
    "profile": _profile,
}
