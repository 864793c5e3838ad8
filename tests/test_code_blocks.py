"""The code that pages show works: commands parse, settings load, Python runs or resolves."""

import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from rootstock.cli.main import build_parser
from rootstock.config.load import load_config
from rootstock.config.schema import Config
from tests.bundles import jpeg, tiny_backbone, tiny_bundle
from tests.data.folders import write_classes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL = ("", "bash", "console")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
OUTSIDE = ("mlflow",)
"""Modules whose names are not resolved here: a unit test does not import them."""
RUNS = {"docs/guides/python.md", "docs/guides/export.md"}
"""Pages whose Python runs here, block after block, except for the blocks that need a registry or
a service."""


def relative(page):
    return page.relative_to(ROOT).as_posix()


def blocks_of(page, *languages):
    return [
        text
        for language, text in BLOCK.findall(page.read_text(encoding="utf-8"))
        if language in languages
    ]


def list_blocks(*languages):
    """Return (page, text) of each block, with an id that names the page and the place."""
    return [
        pytest.param(page, text, id=f"{relative(page)}-{number}")
        for page in PAGES
        for number, text in enumerate(blocks_of(page, *languages))
    ]


def list_commands(text):
    """Yield the words of each command of a block; comments, variables and prompts are left out."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True) if is_command(line) else []
        command = []
        for word in [*words, ";"]:
            if word in ("&&", "||", ";", "|", ">"):
                if command:
                    yield command
                command = []
            elif command or not re.match(r"[A-Z][A-Z0-9_]*=", word):
                command.append(word)


def is_command(line):
    programs = r"(?:rootstock [a-z-]+|make|dvc|curl|pip)\b"
    return bool(re.match(rf"(?:\$ )?(?:[A-Z][A-Z0-9_]*=\S+ )*{programs}", line))


def check_command(words):
    """Fail unless the program knows the words: ours are parsed, make's are targets."""
    if words[0] == "rootstock" and words[1:] != ["--version"]:
        try:
            options = build_parser().parse_args(words[1:])
        except SystemExit as error:
            raise AssertionError(f"`{' '.join(words)}` is not a command") from error
        load_config(None, overrides=getattr(options, "set", []))
    elif words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS
    elif words[:3] == ["dvc", "exp", "run"]:
        changes = [words[i + 1] for i, word in enumerate(words) if word in ("-S", "--set-param")]
        load_config(None, overrides=changes)


SHELL_BLOCKS = [one for one in list_blocks(*SHELL) if list(list_commands(one.values[1]))]


@pytest.mark.parametrize(("page", "text"), SHELL_BLOCKS)
def test_commands_in_a_block_parse(page, text):
    for words in list_commands(text):
        check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_and_options_in_the_text_exist(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for span in SPAN.findall(text):
        words = span.split()
        if words[0] == "make" and len(words) > 1:
            assert words[1] in TARGETS, span
        elif words[0] == "rootstock" and len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*", words[1]):
            commands = build_parser()._subparsers._group_actions[0].choices
            assert words[1] in commands, span
            known = commands[words[1]]._option_string_actions
            options = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
            assert all(option in known for option in options), span


@pytest.mark.parametrize(("page", "text"), list_blocks("yaml"))
def test_settings_in_a_block_are_valid(page, text):
    tree = yaml.safe_load(text)
    assert set(tree) <= set(Config.model_fields)
    Config.model_validate(tree)


@pytest.mark.parametrize(("page", "text"), list_blocks("json"))
def test_json_in_a_block_is_valid(page, text):
    json.loads(text)


@pytest.mark.parametrize(("page", "text"), list_blocks("python"))
def test_python_in_block_compiles_and_names_what_exists(page, text):
    modules, tree = {}, ast.parse(textwrap.dedent(text))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] not in OUTSIDE:
                    modules[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] not in OUTSIDE:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = node.value.id
            assert name not in modules or hasattr(modules[name], node.attr), ast.unparse(node)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the files that the pages name, and settings that make a training tiny."""
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "photos", {"daisy": 16, "rose": 16})
    shutil.copytree(tmp_path / "photos", tmp_path / "more-photos")
    for name in ("a.jpg", "b.jpg", "photo.jpg", "new.jpg"):
        (tmp_path / name).write_bytes(jpeg(3))
    shutil.copytree(tiny_bundle(), tmp_path / "run1/artifacts/model")
    settings = {
        "backbone": {"weights": str(tiny_backbone().card.weights)},
        "plan": {"strategy": "linear_probe"},
        "search": {"engine": "sequential"},
        "tracking": {"enabled": False},
        "train": {"l2_grid": [0.1]},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


@pytest.mark.integration
@pytest.mark.parametrize("page", sorted(RUNS))
def test_python_of_a_page_runs_in_order(page, project):
    if "export" in page:
        export = ["export", "--format", "onnx", "--model", "run1/artifacts/model"]
        command = [sys.executable, "-m", "rootstock", *export, "--out", "exported"]
        subprocess.run(command, check=True, cwd=project)
    program = "\n".join(
        text
        for text in blocks_of(ROOT / page, "python")
        if not re.search(r"models:/|\.serve\(|http://", text)
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
