"""What of a run folder segda wrote: all that --overwrite removes.

A folder is a run's if its recipe.yaml is as segda wrote it: its last line is a hash of the others. A recipe of one's
own is none, nor is one that was edited. Files of other names stay, wherever in the folder they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from segda.errors import RunError
from segda.ground.alone import LOCK
from segda.ground.atomic import cannot_write, is_partial
from segda.ground.safe_yaml import read_json

MARK = "# the recipe of a run folder of segda, as it was written: "

AT_THE_TOP = ("last.pt", "report.html", "log.jsonl", "environment.json", "data.json", "logger.json")
"""Besides recipe.yaml and the products."""


def marked(text: str) -> str:
    """The text of recipe.yaml with the line that says whose it is."""
    return f"{text}{MARK}{hashlib.sha256(text.encode()).hexdigest()}\n"


def is_marked(run: Path) -> bool:
    """Whether a folder's recipe.yaml is as segda wrote it."""
    path = run / "recipe.yaml"
    try:
        written = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, ValueError):
        return False
    text, mark, _ = written.rpartition(MARK)
    return bool(mark) and written == marked(text)


def _is_report(path: Path) -> bool:
    """Whether a JSON file holds what `segda evaluate` writes."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return False
    if isinstance(found, dict):
        return {"data", "snapshots"} <= found.keys()
    return isinstance(found, list) and all(isinstance(one, dict) and "protocol" in one for one in found)


def refuse_unreadable(run: Path) -> None:
    """RunError where a JSON file in reports/ is none of segda's: it would stay, and be read as a report."""
    for path in sorted((run / "reports").glob("*.json")):
        if not _is_report(path):
            raise RunError(f"{path} is no report of segda, and --overwrite would leave it; move it elsewhere")


def _folders(stems: Collection[str]) -> dict[str, Callable[[Path], bool]]:
    """Folder -> whether a file in it is one that segda wrote. stems: of the products' files."""
    snapshot = re.compile(rf"({'|'.join(map(re.escape, stems))})-\d{{7,}}\.safetensors")
    return {
        "reports": lambda path: path.suffix == ".json" and _is_report(path),
        "snapshots": lambda path: snapshot.fullmatch(path.name) is not None,
        "tensorboard": lambda path: path.name.startswith("events.out.tfevents."),
        "watched": lambda path: re.fullmatch(r"\d+(-\d{7,}(-H)?)?\.png|watched\.json", path.name) is not None,
        "checkpoints": lambda path: re.fullmatch(r"checkpoint-\d{7,}\.pt", path.name) is not None,
    }


def remove_own(run: Path, stems: Collection[str]) -> None:
    """Removes what segda wrote there but for recipe.yaml, which says until the end that there is a run. RunError where
    that cannot be, or where a subfolder is a link: what is behind it may be others', too.
    """
    try:
        for name in (*(f"{stem}.safetensors" for stem in sorted(stems)), *AT_THE_TOP):
            (run / name).unlink(missing_ok=True)
        for name, is_own in _folders(stems).items():
            folder = run / name
            if folder.is_symlink():
                raise RunError(f"cannot write {folder}: it is a link; remove it, or choose another --out")
            for path in [path for path in folder.glob("*") if is_own(path) or is_partial(path)]:
                path.unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        raise cannot_write(run, error) from error


def others(run: Path) -> Iterator[str]:
    """The names of what is left in a folder that holds nothing else of segda's."""
    for path in sorted(run.iterdir()):
        if path.is_dir() and path.name in _folders(()):
            yield from (f"{path.name}/{inner.name}" for inner in sorted(path.iterdir()))
        elif path.name not in ("recipe.yaml", LOCK):
            yield path.name
