"""What mkdocs calls while it builds the site: pages from outside docs/, the reference, the notebooks, the links."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

from docs_build import commands, keys, links, lists, names, notebooks

REFERENCE = {"commands": commands.page, "recipe": keys.page, "python": names.page, "lists": lists.page}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Anchors as those of the repository's viewers, by which the documents link to each other."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made: dict[str, str | bytes] = {
        page: (links.ROOT / path).read_text(encoding="utf-8") for path, page in links.PAGES.items()
    }
    made |= {f"reference/{name}.md": page() for name, page in REFERENCE.items()}
    found = sorted(Path(config.docs_dir, "notebooks").glob("*.ipynb"))
    for contents in notebooks.pages(found).values():
        made |= {f"notebooks/{name}": content for name, content in contents.items()}
    texts = {file.src_uri: file.content_string for file in files if file.is_documentation_page()}
    texts |= {page: text for page, text in made.items() if isinstance(text, str)}
    for path in sorted({path for page, text in texts.items() for path in links.shown(page, text)}):
        made[f"{links.SHOWN}{path}.md"] = links.of_file(path)
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return links.rewritten(page.file.src_uri, markdown)


class Loads(HTMLParser):
    """What a page makes a browser ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        where = given.get("src") or (given.get("href") if tag == "link" else None) or ""
        self.found += [where] * where.startswith(("http:", "https:", "//"))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A page that asks another host for anything is refused: who reads the site is nobody else's business."""
    loads = Loads()
    loads.feed(output)
    if loads.found:
        raise PluginError(f"{page.file.src_uri} loads {', '.join(loads.found)} from another host")
    return output
