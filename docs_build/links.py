"""Links between the documents, as they are written for a reader of the repository, become links of the site.

A link to a page leads to the page, one to any other file of the repository to a page that shows that file. What is no
file, a folder for instance, becomes plain text: nobody knows the repository's address here.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
"""Documents outside docs/ -> their pages."""

SHOWN = "source/"
"""Where the pages are that show files."""

FENCE = re.compile(r"^(`{3,}).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def home(page: str) -> str:
    """The document of a page, from the repository's root."""
    return next((path for path, one in PAGES.items() if one == page), f"docs/{page}")


def led(page: str, target: str) -> tuple[str, str] | None:
    """The file of the repository that a link of a page leads to, and the anchor; None of a link to elsewhere."""
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", target):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(home(page)), path)), anchor


def place(path: str) -> str | None:
    """Where the site has a file of the repository; None where it has not."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    return f"{SHOWN}{path}.md" if (ROOT / path).is_file() else None


def rewritten(page: str, text: str) -> str:
    """The text of a page with the site's links."""

    def other(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        leads = led(page, target)
        if leads is None:
            return found[0]
        there = place(leads[0])
        if there is None:
            return words
        relative = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"{picture}[{words}]({relative}{'#' * bool(leads[1])}{leads[1]})"

    return _outside_code(text, other)


def shown(page: str, text: str) -> list[str]:
    """The files of the repository that need a page of their own, since this page links to them."""
    found: list[str] = []

    def see(link: re.Match[str]) -> str:
        leads = led(page, link[3])
        if leads is not None and (place(leads[0]) or "").startswith(SHOWN):
            found.append(leads[0])
        return link[0]

    _outside_code(text, see)
    return found


def of_file(path: str) -> str:
    """The page that shows a file. A search does not find it: it is no document."""
    text = (ROOT / path).read_text(encoding="utf-8")
    language = {".py": "python", ".yaml": "yaml", ".md": "markdown", ".toml": "toml"}.get(Path(path).suffix, "text")
    return (
        f"---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n\n# {path}\n\n`````{language}\n{text}\n`````\n"
    )


def _outside_code(text: str, change) -> str:
    parts, at = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(change, text[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, LINK.sub(change, text[at:])])
