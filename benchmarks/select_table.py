"""What the criteria of `segda select` are worth on the snapshots of a sweep: Markdown tables.

    python benchmarks/select_table.py TARGET ORACLE IMAGES RUN...

TARGET: images to judge by, as `camvid:train:dusk`. ORACLE: labelled images of the target. IMAGES: so many of TARGET.
The first table is of all candidates, students and teachers. The second one is of the questions that people have: which
of all students, which step of one training (its students; the mean over the trainings), which step and student or
teacher (where there are any), and which of the trainings of one seed (their last students; the mean over the seeds). A
seed is what follows "-seed" in a run's name.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import replace
from math import isnan
from pathlib import Path
from statistics import mean

from segda.commands.select import select
from segda.evaluation.selection import Candidate, Selection


def part(selection: Selection, chosen: list[int]) -> Selection:
    """Of some of the candidates."""
    return replace(
        selection,
        candidates=tuple(selection.candidates[i] for i in chosen),
        scores={name: tuple(scores[i] for i in chosen) for name, scores in selection.scores.items()},
        mious=tuple(selection.mious[i] for i in chosen),
    )


def parts(selection: Selection, keys: Iterable[Hashable]) -> list[Selection]:
    """Candidates of one key stay together; those of None are left out."""
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        if key is not None:
            by_key[key].append(i)
    return [part(selection, chosen) for chosen in by_key.values() if len(chosen) > 1]


def seed_of(run: Path) -> str:
    return run.name.rpartition("-seed")[2]


def whole(selection: Selection) -> list[str]:
    rows = []
    for name in selection.scores:
        choice = selection.choice(name)
        if choice is None:
            continue
        known = sum(not isnan(score) for score in selection.scores[name])
        of = "" if known == len(selection.candidates) else f" ({known} of the candidates)"
        miou, regret = 100 * selection.mious[choice], 100 * selection.regret(name)
        row = (
            f"| {name}{of} | {selection.correlation(name):+.2f} | {label(selection.candidates[choice])} "
            f"| {miou:.1f} | {regret:.1f} |"
        )
        rows.append((selection.correlation(name), row))
    return [row for _, row in sorted(rows, reverse=True)]


def label(candidate: Candidate) -> str:
    where = "at the end" if candidate.last else f"after {candidate.step:,} steps"
    return f"{candidate.run.name}, {candidate.weights}, {where}"


def worth(selections: list[Selection], name: str) -> str:
    """The mean correlation and regret of a criterion, over the selections in which it has any."""
    correlations = [one for selection in selections if not isnan(one := selection.correlation(name))]
    regrets = [100 * one for selection in selections if not isnan(one := selection.regret(name))]
    return f"{mean(correlations):+.2f} / {mean(regrets):.1f}" if correlations else "-"


def main(data: str, oracle: str, images: int, runs: list[str]) -> None:
    selection = select(runs, data=data, oracle=oracle, images=images, weights=("student", "teacher"))
    candidates, mious = selection.candidates, [100 * miou for miou in selection.mious]
    with_teacher = {one.run for one in candidates if one.weights == "teacher"}
    questions: dict[str, list[Hashable]] = {
        "which student": [True if one.weights == "student" else None for one in candidates],
        "which step": [one.run if one.weights == "student" else None for one in candidates],
        "which step, student or teacher": [one.run if one.run in with_teacher else None for one in candidates],
        "which training": [seed_of(one.run) if one.last and one.weights == "student" else None for one in candidates],
    }
    asked = {question: parts(selection, keys) for question, keys in questions.items()}
    print(
        f"{len(candidates)} candidates of {len({one.run for one in candidates})} trainings; {selection.images} images "
        f"of {selection.data}; source: {selection.source}; mIoU on {oracle} {min(mious):.1f} to {max(mious):.1f}, on "
        f"average {mean(mious):.1f}; the best: {label(candidates[mious.index(max(mious))])}\n"
    )
    print("| criterion | rank correlation | takes | mIoU | regret |\n|---|---:|---|---:|---:|")
    print("\n".join(whole(selection)))
    print(f"\n| correlation / regret | {' | '.join(f'{name} ({len(of)})' for name, of in asked.items())} |")
    print(f"|---|{'---|' * len(asked)}")
    for name in selection.scores:
        print(f"| {name} | {' | '.join(worth(of, name) for of in asked.values())} |")
    # What somebody has who takes the last network, or any.
    ends = [
        100 * (max(of.mious) - last)
        for of in asked["which step"]
        for one, last in zip(of.candidates, of.mious, strict=True)
        if one.last
    ]
    print(f"\nThe last step of a training lies {mean(ends):.1f} points below its best one on average.")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
