"""Models on the Hugging Face hub: `organisation/name`, at a revision of it, with the digest that its file must have.

    nvidia/mit-b5
    nvidia/mit-b5@REVISION              a commit (or a tag, or a branch, which may move)
    nvidia/mit-b5@REVISION#SHA256       refused if the file of weights has another SHA-256

What is there is read as .safetensors. A model that is a pickle alone is refused unless `--trust organisation/name`
names it; of its pickle, too, only tensors are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from segda.errors import WeightsError
from segda.ground.paths import sha256_of
from segda.ground.safe_yaml import first_line
from segda.ground.trust import trusts
from segda.networks.weights import hugging_face

ON_HUB = (*hugging_face.SINGLE, *hugging_face.INDICES)
"""What is looked for in a model on the hub, in this order."""

SAFE = tuple(name for name in ON_HUB if "safetensors" in name)

HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(#(?P<sha256>[0-9a-f]{64}))?")


@dataclass(frozen=True)
class Model:
    """A model on the hub. revision: None for the newest. sha256: of its file of weights; None where nobody says."""

    name: str
    revision: str | None
    sha256: str | None


def from_hub(where: str) -> Path:
    """The file of a model on the hub: the cached one, or downloaded; WeightsError when it cannot be had."""
    found = HUB_NAME.fullmatch(where)
    assert found is not None
    model = Model(**found.groupdict())
    wanted = ON_HUB if trusts(model.name) or trusts(where) else SAFE
    return _checked(_cached(model, wanted) or _downloaded(where, model, wanted), model)


def at_commit(where: str, file: Path) -> str:
    """A model's name with the commit that its file is of, which names what to pin; as it is where it has a revision, or
    the file is not of the hub's cache.
    """
    found = HUB_NAME.fullmatch(where)
    if found is None or found["revision"] or file.parent.parent.name != "snapshots":
        return where
    return where.replace(found["name"], f"{found['name']}@{file.parent.name}", 1)


def _cached(model: Model, wanted: tuple[str, ...]) -> Path | None:
    """The first of these files that is in the cache, with its parts."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for file in wanted:
        try:
            path = hf_hub_download(model.name, file, revision=model.revision, local_files_only=True)
            return _with_its_parts(Path(path), model, cached=True)
        except LocalEntryNotFoundError:
            continue
    return None


def _downloaded(where: str, model: Model, wanted: tuple[str, ...]) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    # Asking what there is fails at once without a network; a download would try again for half a minute.
    # Every Exception: the errors of the hub's HTTP client are of another class in each of its versions.
    try:
        told = HfApi().model_info(model.name, revision=model.revision, timeout=10)
        there = {sibling.rfilename for sibling in told.siblings or ()}
        for file in wanted:
            if file in there:
                for beside in {hugging_face.CONFIG, hugging_face.PREPROCESSOR} & there:
                    hf_hub_download(model.name, beside, revision=model.revision)
                path = Path(hf_hub_download(model.name, file, revision=model.revision))
                return _with_its_parts(path, model)
    except WeightsError:
        raise
    except Exception as error:
        if held := _cached(model, ON_HUB):
            raise _a_pickle(where, model, held.name) from error
        raise WeightsError(
            f"network.weights: {where} is no file or folder here, and cannot be had from the Hugging Face hub "
            f"({first_line(error)}); give the path of a downloaded file, or 'scratch'"
        ) from error
    if pickles := sorted(there.intersection(ON_HUB)):
        raise _a_pickle(where, model, pickles[0])
    raise WeightsError(
        f"network.weights: {where} on the Hugging Face hub has none of {', '.join(ON_HUB)}; "
        "download its weights yourself and give the path, or 'scratch'"
    )


def _a_pickle(where: str, model: Model, file: str) -> WeightsError:
    return WeightsError(
        f"network.weights: {where} from the Hugging Face hub is no .safetensors, but a pickle ({file}), and was not "
        f"read: add --trust {model.name}, which reads its tensors alone and runs nothing, or give a file"
    )


def _with_its_parts(file: Path, model: Model, cached: bool = False) -> Path:
    """A file of a model on the hub, with the parts that it is the index of."""
    from huggingface_hub import hf_hub_download

    if file.name in hugging_face.INDICES:
        for part in hugging_face.files_named(file):
            if file.name in SAFE and not part.endswith(".safetensors"):
                raise WeightsError(
                    f"network.weights: {file} names a pickle as one of its parts ({part}); do not use it"
                )
            hf_hub_download(model.name, part, revision=model.revision, local_files_only=cached)
    return file


def _checked(file: Path, model: Model) -> Path:
    """The file, or WeightsError where it has not the digest that was asked for."""
    if model.sha256 is None:
        return file
    if file.name in hugging_face.INDICES:
        raise WeightsError(
            f"network.weights: {model.name} has its weights in several files, and #{model.sha256[:8]}... is of one; "
            "pin the revision, which names all of them: @COMMIT"
        )
    found = sha256_of(file)
    if found != model.sha256:
        raise WeightsError(
            f"network.weights: {file} is not the file that was asked for: its sha256 is {found}, not {model.sha256}; "
            "remove it and fetch it again, or name the revision that it is of"
        )
    return file
