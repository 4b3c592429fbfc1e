"""`segda push`: a run's network as a model on the Hugging Face hub, with a card that says what it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from segda.errors import RecipeError, RunFailure
from segda.evaluation.metrics import Report, read_reports
from segda.evaluation.protocol import Protocol
from segda.exporting.about import About
from segda.exporting.huggingface import SEGFORMER
from segda.exporting.job import Asked, export_run
from segda.ground.choices import Weights
from segda.ground.safe_yaml import first_line, read_json
from segda.networks.weights.hugging_face import CONFIG
from segda.run import load_recipe_of

CARD = "README.md"


@dataclass(frozen=True)
class Pushed:
    """Where it is."""

    url: str
    files: tuple[str, ...]

    def lines(self) -> list[str]:
        return [f"{self.url}: {', '.join(self.files)}"]


def push_run(
    run: Path,
    repo: str,
    private: bool,
    weights: Weights,
    data: str | None,
    root: Path | None,
    size: str,
    step: int | None,
) -> Pushed:
    """`segda push`, see commands/push.py. Who it is that asks is found out first; nothing is made on the hub before
    the network is exported and compared.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RecipeError(f"{repo}: no name of a model ({first_line(error)}); give NAME or OWNER/NAME") from None
    load_recipe_of(run)  # what is no run, or a stranger's, is said before anybody is asked
    hub = HfApi()
    # Every Exception: the errors of the hub's HTTP client are of another class in each of its versions.
    try:
        hub.whoami()
    except Exception as error:
        raise RecipeError(
            f"the hub at {hub.endpoint} does not know who you are ({first_line(error)}); log in with hf auth login, or "
            "set HF_TOKEN to a token that may write"
        ) from error
    with TemporaryDirectory(prefix="segda-push-") as place:
        folder = Path(place) / "model"
        asked = Asked(
            run, "huggingface", folder, size, weights, "32", "float", "probabilities", data, None, root, step, False
        )
        about = export_run(asked).about
        (folder / CARD).write_text(card(repo, about, folder, measured(run, about)), encoding="utf-8")
        files = tuple(sorted(path.name for path in folder.iterdir()))
        try:
            made = hub.create_repo(repo, private=private, exist_ok=True)
            hub.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=f"{about.recipe}, by segda push")
        except Exception as error:
            raise RunFailure(f"{repo}: not pushed to {hub.endpoint} ({first_line(error)}); call it again") from error
    return Pushed(str(made), files)


def measured(run: Path, about: About) -> list[Report]:
    """The reports of these weights."""

    def is_of_it(told: object) -> bool:
        return isinstance(told, Protocol) and (told.weights, told.step) == (about.weights, about.step)

    return [report for report in read_reports(run) if is_of_it(report.protocol)]


def card(repo: str, about: About, folder: Path, reports: Sequence[Report]) -> str:
    """What the hub shows of the model, in Markdown."""
    plain = read_json(folder / CONFIG).get("model_type") == SEGFORMER
    facts = {"library_name": "transformers" if plain else "segda", "pipeline_tag": "image-segmentation"}
    head = [f"{key}: {json.dumps(value)}" for key, value in facts.items()]
    tags = ["tags:", "- semantic-segmentation", "- domain-adaptation", "- segda"]
    reads = (
        ["from transformers import AutoModelForSemanticSegmentation", "",
         f'network = AutoModelForSemanticSegmentation.from_pretrained("{repo}")']
        if plain
        else ["from huggingface_hub import snapshot_download", "import segda", "",
              f'segda.predict(snapshot_download("{repo}"), ["photos"], "predictions", overlay=True)']
    )  # fmt: skip
    lines = ["---", *head, *tags, "---", "", f"# {repo.rpartition('/')[2]}", ""]
    step = "" if about.step is None else f" after step {about.step}"
    lines += [f"A network for semantic segmentation, trained by segda: {about.recipe}, the {about.weights}{step}.", ""]
    lines += ["```python", *reads, "```", "", f"{about.sentence()}: {', '.join(about.classes)}.", ""]
    if reports:
        lines += ["| data | mIoU in % |", "| --- | ---: |"]
        lines += [f"| {report.protocol.sentence()} | {100 * report.miou:.1f} |" for report in reports]
        lines.append("")
    return "\n".join(lines)
