"""`python -m pipelines.code`: write into dvc.yaml the code that each stage depends on."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from rootstock.workflow.code_dependencies import find_code

DVC_YAML = Path("dvc.yaml")
STAGE = re.compile(
    r"(?P<head>    cmd: python -m (?P<module>\S+)\n(?:    .*\n)*?      # code: .*\n)"
    r"(?:      - .*\n)*"
)
"""A stage up to the comment above its code, followed by the lines of its code."""


def main() -> None:
    """Update the code that dvc.yaml lists for each stage; the rest of the file is unchanged."""
    text = DVC_YAML.read_text(encoding="utf-8")
    DVC_YAML.write_text(list_code(text, Path()), encoding="utf-8")


def list_code(text: str, root: Path) -> str:
    """Return the dvc.yaml ``text`` with the current code of each stage of the project ``root``."""

    def rewrite(stage: re.Match[str]) -> str:
        files = find_code(stage["module"], (root, root / "src"))
        code = [*_shorten(root / "pipelines", files), *_shorten(root / "src/rootstock", files)]
        lines = (f"      - {path.relative_to(root).as_posix()}\n" for path in code)
        return stage["head"] + "".join(lines)

    return STAGE.sub(rewrite, text)


def _shorten(folder: Path, files: Collection[Path]) -> Iterator[Path]:
    """Yield ``folder`` if all modules in it are among ``files``, otherwise the ones that are."""
    if not any(folder in path.parents for path in files):
        return
    if all(path in files for path in folder.rglob("*.py")):
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _shorten(path, files)
        elif path in files and path.stat().st_size:  # an empty __init__.py has no effect
            yield path


if __name__ == "__main__":
    main()
