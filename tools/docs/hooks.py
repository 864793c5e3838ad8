"""Hooks of MkDocs: add pages from the code and from the root folder, and adapt their links."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.docs.pages import GENERATED

ROOT = Path(__file__).parents[2]
PROJECT = {
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    "project/licence.md": "LICENSE",
}
"""Page of the site, and the file of the root folder that it shows."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the sections Decisions and Project of the navigation."""
    docs = Path(config.docs_dir)
    sections: dict[str, list[Any]] = {
        "Decisions": sorted(p.relative_to(docs).as_posix() for p in docs.glob("decisions/*.md")),
        "Project": list(PROJECT),
    }
    for section in config.nav or []:
        for name, pages in sections.items():
            if name in section:
                section[name] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files below docs/."""
    for name, make_page in GENERATED.items():
        files.append(File.generated(config, name, content=make_page()))
    for name, source in PROJECT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source == "LICENSE":
            text = f"# Licence\n\n```\n{text}\n```\n"
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapt links to files outside of docs/: to a page of the site, or to plain text."""
    source = PROJECT.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return LINK.sub(lambda match: _adapt(match, source, page.file.src_uri), markdown)


def _adapt(match: re.Match[str], source: str, here: str) -> str:
    mark, text, link = match.groups()
    path, sharp, anchor = link.partition("#")
    if not path or "://" in link or path.startswith("mailto:"):
        return match[0]
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    pages = {file: page for page, file in PROJECT.items()} | {"README.md": "index.md"}
    if target.startswith("docs/"):
        target = target.removeprefix("docs/")
    elif target in pages:
        target = pages[target]
    else:
        return text
    return f"{mark}[{text}]({posixpath.relpath(target, posixpath.dirname(here))}{sharp}{anchor})"
