"""The project keeps what it says about itself: budgets, documents, locks."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import dicomfs
from dicomfs import config
from dicomfs.cli import COMMANDS
from dicomfs.cli.exit_codes import ExitCode

PROJECT = Path(__file__).parents[1]
MODULES = sorted((PROJECT / "dicomfs").rglob("*.py"))
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
MOST_LINES = 500


def text(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_module_says_what_it_owns_and_keeps_to_its_size(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "no docstring"
    assert len(source.splitlines()) <= MOST_LINES
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", source)


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_documented(code: ExitCode) -> None:
    assert f"\n| {code.value} | " in text("docs/operations.md")


def test_no_other_exit_code_is_documented() -> None:
    table = text("docs/operations.md").partition("## Exit codes")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == set(map(int, ExitCode))


def test_the_commands_of_the_readme_are_those_there_are() -> None:
    listed = re.findall(r"^\| `([a-z]+)", text("README.md"), re.MULTILINE)
    assert listed == list(COMMANDS)


def test_every_setting_is_documented_with_its_default() -> None:
    documented = text("docs/operations.md").partition("## Settings")[2].partition("\n## ")[0]
    defaults = config.Settings()
    for section in ("archive", "pack", "mount", "keys", "lifecycle", "gc", "snapshots", "prices"):
        values = getattr(defaults, section)
        for name in values.__struct_fields__:
            assert f"`{section}.{name}`" in documented
            value = getattr(values, name)
            if isinstance(value, bool) or value is None:
                continue
            assert (
                f"`{section}.{name}` | " + (f'"{value}"' if isinstance(value, str) else str(value))
                in documented
            )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("number", sorted({path.name[:4] for path in (PROJECT / "docs/adr").glob("*.md")}))
def test_a_decision_has_a_number_of_its_own(number: str) -> None:
    assert len(list((PROJECT / "docs/adr").glob(f"{number}-*.md"))) == 1


def test_every_direct_dependency_is_locked_and_explained() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    extras = [name for group in project["optional-dependencies"].values() for name in group]
    explained = text("docs/dependencies.md")
    for lock, requirements in (
        ("requirements.lock", project["dependencies"]),
        ("requirements-dev.lock", project["dependencies"] + extras),
    ):
        locked = set(re.findall(r"^([a-z0-9-]+)==", text(lock), re.MULTILINE))
        for requirement in requirements:
            name = re.split(r"[<>=[]", requirement)[0]
            assert name in locked, f"{name} is not in {lock}: run tools/lock"
            assert re.search(rf"\| .*\b{name}\b", explained), f"{name} is not explained"


@pytest.mark.parametrize("lock", ["requirements-build.lock", "requirements.lock", "requirements-dev.lock"])
def test_locks_hold_hashes_and_no_index_address(lock: str) -> None:
    for block in re.split(r"\n(?=[a-z0-9])", text(lock).partition("\n")[2]):
        if re.match(r"[a-z0-9]", block):
            assert "--hash=sha256:" in block
    assert "://" not in text(lock)


def test_the_version_is_a_semantic_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", dicomfs.__version__)
