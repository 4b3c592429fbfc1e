"""Notebooks become pages: they are executed, each in an empty folder, and shown with what came out.

They are kept without outputs, so that no picture is older than the code that draws it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

LIMIT = 1800
"""Seconds that a cell, or the start of its Python, may take: what hangs ends the build, not what is slow."""


def pages(paths: list[Path]) -> dict[str, Mapping[str, str | bytes]]:
    """Of each notebook, by its name: the page's files, the page itself first. At the same time, a thread each."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ThreadPoolExecutor(len(paths)) as pool:
        return dict(zip((path.stem for path in paths), pool.map(page, paths), strict=True))


def page(path: Path) -> dict[str, str | bytes]:
    """The files of a notebook's page. nbclient's CellExecutionError, with the cell and the traceback, if one fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=LIMIT, startup_timeout=LIMIT, resources=where).execute()
    resources = {"unique_key": path.stem, "output_files_dir": path.stem}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources=resources)
    title, _, rest = text.partition("\n")
    download = f'<a href="{path.name}" download>This notebook</a> was executed when this page was built.\n'
    return {f"{path.stem}.md": f"{title}\n\n{download}{rest}", **resources["outputs"]}
