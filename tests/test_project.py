"""What a newcomer's first hour depends on: the packaging, the two commands, and pages that are complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def package_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in requirements}


def test_every_dependency_has_a_line_that_says_why(project: dict[str, Any]) -> None:
    needed = package_names(project["project"]["dependencies"])
    for extra in project["project"].get("optional-dependencies", {}).values():
        needed |= package_names(extra)
    rows = re.findall(r"^\| ([\w.-]+) \| (.+) \|$", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    explained = {name for name, why in rows if name != "package" and why.strip("- ")}

    assert explained == needed


def test_every_package_is_installed(project: dict[str, Any]) -> None:
    found = [
        ".".join(init.parent.relative_to(ROOT).parts)
        for top in ("homeserver", "federation", "client_api")
        for init in (ROOT / top).rglob("__init__.py")
    ]
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(found)


def test_the_files_that_storage_reads_are_installed(project: dict[str, Any]) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]["homeserver.storage"]
    storage = ROOT / "homeserver" / "storage"
    installed = {path for pattern in patterns for path in storage.glob(pattern)}

    assert {path for path in (storage / "schema").iterdir() if path.suffix != ".pyc"} <= installed


def test_the_changelog_opens_with_the_version(project: dict[str, Any]) -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == project["project"]["version"]


def test_the_licence_is_the_one_declared(project: dict[str, Any]) -> None:
    text = (ROOT / "LICENSE").read_text()
    assert project["project"]["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_pages_lead_to_files_that_are_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert links == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "steps"),
    [
        ("run", ["quickstart data --port 8008"]),
        ("test", [".ci/postgresql", "ruff check", "mypy", "pytest -n 2 --dist loadgroup -rs"]),
        ("bench", ["python -m bench"]),
    ],
)
def test_make_knows_its_targets(target: str, steps: list[str]) -> None:
    # A make that runs the tests would hand its own settings down.
    environ = {"PATH": os.environ["PATH"]}
    planned = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert [step for step in steps if step not in planned.stdout] == []


@pytest.mark.parametrize("script", ["run", "postgresql", "synapse"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / ".ci" / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_a_part_that_cannot_be_had_is_reported_and_skipped(tmp_path: Path) -> None:
    """Without PostgreSQL and without apt-get the step says why and lets the tests go on."""
    for tool in ("bash", "id", "sed", "dirname"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    script = (ROOT / ".ci/postgresql").read_text().replace("/usr/", "/nowhere/").replace("/opt/", "/nowhere/")
    script = script.replace("#!/nowhere/bin/env", "#!/usr/bin/env")

    ran = subprocess.run(
        ["bash", "-c", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0
    assert "the tests that need it will be skipped" in ran.stderr
