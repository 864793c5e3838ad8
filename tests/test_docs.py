"""Documentation cannot go stale: commands, keys, links and names are compared with the code."""

import argparse
import re
from pathlib import Path

import pytest

import rootstock
from rootstock.cli.main import build_parser
from rootstock.config.load import describe_keys

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    parser = build_parser()
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_has_help(command):
    assert commands()[command].description


def test_every_command_the_readme_shows_exists():
    shown = set(re.findall(r"^rootstock (\w+)", README, flags=re.MULTILINE))
    assert shown
    assert shown <= set(commands())


def test_every_make_target_the_readme_shows_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_every_key_the_readme_shows_exists():
    keys = {key for key, _, _ in describe_keys()}
    sections = "data|backbone|assess|plan|features|train|search|tracking|registry"
    shown = set(re.findall(rf"\b((?:{sections})\.[a-z_]+)", README))
    assert shown - {"plan.md", "data.md", "registry.md", "registry.name", "registry.gate"} <= keys


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_local_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_public_names_can_be_imported_and_are_sorted():
    assert rootstock.__all__ == sorted(rootstock.__all__)
    assert all(getattr(rootstock, name) for name in rootstock.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rootstock.nonsense
