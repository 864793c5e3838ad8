"""Documentation stays current: commands, keys, links, and names are compared with the code."""

import argparse
import json
import re
from pathlib import Path

import pytest

import rootstock
from rootstock.cli.main import build_parser
from rootstock.config.describe import describe_keys
from rootstock.config.schema import Config
from rootstock.service.http.schemas import make_predict_answer
from rootstock.tasks import task_names
from rootstock.tasks.task import Task
from tools.docs.pages import GENERATED

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/rootstock"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs/guides/tasks.md").read_text(encoding="utf-8")
# The changelog also names what was removed.
CURRENT_PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]
CODE = re.compile(r"^```[^\n]*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
TOP_FOLDERS = ("benchmarks", "docs", "pipelines", "services", "src", "tests", "tools")
ROOMS = tuple(path.name for path in PACKAGE.iterdir() if path.is_dir())


def relative(page):
    return page.relative_to(ROOT).as_posix()


def commands():
    parser = build_parser()
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_has_help(command):
    assert commands()[command].description


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=relative)
def test_every_key_that_a_page_names_exists(page):
    keys = {key.name for key in describe_keys()}
    sections = {key.rpartition(".")[0] for key in keys} - {""}
    files = ("md", "py", "json", "yaml", "csv", "parquet", "npz", "html")
    pattern = re.compile(rf"({'|'.join(sorted(Config.model_fields))})(\.[a-z_0-9]+)+")
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL):
        text = text.replace(block, "" if "helm " in block else block)  # values of the chart
    words = set(words_in_code(text))
    named = {word.partition("=")[0] for word in words}
    named = {name for name in named if pattern.fullmatch(name)}
    assert {name for name in named if name.rpartition(".")[2] not in files} <= keys | sections


def test_the_accuracies_on_the_first_screen_are_measured():
    results = json.loads((ROOT / "benchmarks/results/few_images.json").read_text("utf-8"))
    measured = {
        cell["set"]: f"{100 * cell['accuracy']['auto']:.0f} %"
        for cell in results["cells"]
        if cell["per_class"] == 25
    }
    shown = re.findall(r"(\d+ %) for ([a-z ]+?)[,\s]+(?:and |\()?", " ".join(README.split()))
    named = {"flowers12": "twelve", "ants_bees": "ants", "sign_digits": "ten"}
    assert {words: share for share, words in shown} == {
        word: measured[name] for name, word in named.items()
    }


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_local_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    made = {(ROOT / "docs" / name) for name in GENERATED}
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert not [link for link in missing if (page.parent / link).resolve() not in made]


def words_in_code(text):
    """Yield the words of code spans and code blocks, without quotes, commas and the like."""
    for block, span in CODE.findall(text):
        yield from (word.strip("'\"(),;:") for word in (block or span).split())


def looks_like_a_path(word):
    first, slash, rest = word.partition("/")
    if not re.fullmatch(r"[\w./-]+", word) or "..." in word or "NAME" in word:
        return False
    # data/raw and similar paths are the user's, whatever the package's folders are called.
    ours = first in TOP_FOLDERS or (first in ROOMS and first != "data")
    return (bool(slash) and bool(rest) and ours) or word.endswith(".py")


def exists_as_named(name):
    """Return whether a dotted name is a module of the package, or a name that one defines."""
    parts = name.split(".")[1:]
    if parts[0] in rootstock.__all__:
        return True
    for count in range(len(parts), -1, -1):
        module = PACKAGE.joinpath(*parts[:count])
        source = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        if source.is_file():
            rest = parts[count:]
            pattern = rf"^(?:def |class )?{rest[0]}\b" if rest else ""
            return bool(re.search(pattern, source.read_text(encoding="utf-8"), re.MULTILINE))
    return False


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=relative)
def test_every_path_that_a_page_names_exists(page):
    words = set(filter(looks_like_a_path, words_in_code(page.read_text(encoding="utf-8"))))
    known = {path.name for path in PACKAGE.rglob("*.py")}  # pages may use the name only
    words = {word for word in words if word not in known}
    assert not {word for word in words if not any((d / word).exists() for d in (ROOT, PACKAGE))}


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=relative)
def test_every_module_that_a_page_names_exists(page):
    words = words_in_code(page.read_text(encoding="utf-8"))
    names = {word for word in words if re.fullmatch(r"rootstock(\.[A-Za-z_]\w*)+", word)}
    assert not {name for name in names if not exists_as_named(name)}


@pytest.mark.parametrize("page", ["README.md", "docs/guides/serving.md"])
def test_answer_that_page_shows_has_form_of_answers(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    answer = make_predict_answer().model_validate_json(block)
    assert answer.model_dump(mode="json", exclude_none=True) == json.loads(block)


def test_guide_to_tasks_lists_what_task_needs():
    needed = GUIDE.partition("You need at least them:")[2].partition("All other methods")[0]
    assert set(re.findall(r"^\| `(\w+)`", needed, re.MULTILINE)) == Task.__abstractmethods__


def test_the_guide_to_tasks_names_every_task():
    assert all(f"`{name}`" in GUIDE for name in task_names())


def test_the_guide_to_tasks_shows_code_that_runs():
    sources = [ROOT / "tests/tasks" / name for name in ("brightness.py", "test_second_task.py")]
    tested = "".join(path.read_text(encoding="utf-8") for path in sources)
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert blocks
    assert all(block in tested for block in blocks)


def test_public_names_can_be_imported_and_are_sorted():
    assert rootstock.__all__ == sorted(rootstock.__all__)
    assert all(getattr(rootstock, name) for name in rootstock.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rootstock.nonsense
