"""Every text of the project uses the name of the distribution, and one version."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INSTALLER = r"(?:pip3? install|pipx (?:install|run)|uv (?:add|pip install|tool install)|uvx)"
WRONG_NAME = re.compile(rf"{INSTALLER}\b[^\n`]*[ '\"=]rootstock(?![\w-])")


def read_texts():
    """Yield the path and the text of each file under version control."""
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in names:
        path = ROOT / name
        if path.is_file() and path != Path(__file__):
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_every_install_hint_names_the_distribution():
    wrong = [
        f"{name}: {match.group()}"
        for name, text in read_texts()
        for match in WRONG_NAME.finditer(text)
    ]
    assert not wrong


def test_install_hints_name_only_extras_that_exist():
    extras = set(PROJECT["optional-dependencies"])
    shown = set()
    for _, text in read_texts():
        for names in re.findall(r"(?:rootstock-vision|-e '\.)\[([a-z0-9,]+)\]", text):
            shown |= set(names.split(","))
    assert {"serve", "train", "client"} <= shown <= extras


def test_a_wrong_name_in_a_hint_is_noticed():
    for hint in (
        "pip install rootstock",
        "pip install 'rootstock[serve]'",
        "uv add rootstock",
        'pip install -U "rootstock==0.2"',
    ):
        assert WRONG_NAME.search(hint), hint
    for hint in (
        "pip install 'rootstock-vision[serve]'",
        "pip install rootstock-vision",
        "`pip install x`; rootstock serve",
    ):
        assert not WRONG_NAME.search(hint), hint


def test_all_images_and_changelog_have_version_of_package():
    version = PROJECT["version"]
    for name in ("docker-compose.yml", ".env.example"):
        tags = set(re.findall(r"rootstock-[a-z-]+:([\d.]+)", (ROOT / name).read_text("utf-8")))
        assert tags == {version}
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert newest
    assert newest[1] == version
