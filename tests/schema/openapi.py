"""OpenAPI files made whole: what they refer to in other files stands in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import schemathesis
import yaml


def operations(folder: Path) -> Iterator[Any]:
    """Every operation of the files in a folder, as schemathesis has them.

    Raises ``ValueError`` for one it cannot make anything of.
    """
    for file in sorted(folder.glob("*.yaml")):
        for found in schemathesis.openapi.from_dict(whole(file)).get_all_operations():
            if not hasattr(found, "ok"):
                raise ValueError(f"{file.name}: {found.err()}")
            yield found.ok()


def whole(file: Path) -> Any:
    """The file with every reference replaced by what it leads to."""
    return _resolved(_read(file), file, ())


def _resolved(value: Any, file: Path, on_the_way: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_resolved(one, file, on_the_way) for one in value]
    if not isinstance(value, dict):
        return value
    if not isinstance(value.get("$ref"), str):
        return {name: _resolved(one, file, on_the_way) for name, one in value.items()}
    other, _, inside = value["$ref"].partition("#")
    target = (file.parent / other).resolve() if other else file
    reference = f"{target}#{inside}"
    if reference in on_the_way or not target.exists():
        return {}  # what contains itself, or is in an API that is not at hand, may be anything
    found = _read(target)
    for step in inside.strip("/").split("/") if inside.strip("/") else ():
        found = found[step.replace("~1", "/").replace("~0", "~")]
    beside = {name: one for name, one in value.items() if name != "$ref"}
    resolved = _resolved(found, target, (*on_the_way, reference))
    return {**resolved, **_resolved(beside, file, on_the_way)}


_files: dict[Path, Any] = {}


def _read(file: Path) -> Any:
    if file not in _files:
        _files[file] = yaml.safe_load(file.read_text())
    return _files[file]
