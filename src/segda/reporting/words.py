"""What the numbers of a training's log are, in words: for the lines on the screen and for the charts of report.html."""

from __future__ import annotations

from collections.abc import Iterable

MEANING = {
    "source": "cross entropy on source images",
    "mix": "cross entropy on mixed images",
    "pseudo": "cross entropy on the target's pseudo-labels",
    "feature_distance": "distance of the features from the start's, weighted",
    "balance": "squared distance of the entropy from its level, weighted",
    "masked": "cross entropy on masked images",
    "masked_rest": "cross entropy on the same images where all else is masked",
    "masked_balance": "squared distance of their entropy from its level, weighted",
    "masked_rest_balance": "the same where all else is masked",
    "distillation/": "distance of each domain's features from the frozen encoder's, weighted",
    "confident": "share of target pixels with a confident pseudo-label",
    "changed": "share of target pixels whose pseudo-label the reference image changed",
    "entropy/": "mean entropy on target images by head, relative to ln C, weighted",
    "robust_entropy/": "robust entropy of the target's cells by head, weighted",
    "diversity": "mean share of the classes on target images as minus its entropy, relative to ln C, weighted",
    "fool/": "how little the target looks like the source to each head's discriminator, weighted",
    "style/": "how little painted images pass for real ones with each domain's discriminator, squared",
    "cycle/": "distance of what was painted and painted back from each domain's images, weighted",
    "identity/": "what a generator changes of images that are of its style already, weighted",
    "perceptual/": "how else the given network sees what was painted in each style, weighted",
    "reconstruction/": "how else it sees each domain's images that were painted and painted back, weighted",
    "judge/": "the discriminators' squared error in each domain, halved; 0.25 where they cannot tell what is painted",
    "discriminator/": "its error on each domain, halved; where it cannot tell them apart (ln 2) / 2, of squares 1 / 8",
    "static": "disagreement of night with day and night together where classes stand still, weighted",
    "labelled": "share of night's pixels that show what stands still",
    "variation/": "unevenness of each domain's light, weighted",
    "dissimilarity/": "how little relit images have the structure of the images, weighted",
    "exposure/": "distance of relit images' brightness from the night's, weighted",
    "light/": "standard deviation of each domain's light over an image; near 0 it has collapsed",
    "H/": "mean entropy of the prediction in nats",
}
"""What the scalars in a log are, and, with "/" at the end, groups of them; others are shown by their name alone."""


def meanings(names: Iterable[str]) -> dict[str, str]:
    """Of the scalars that have one, what they are; a group once: fool/main and fool/aux -> fool/..."""
    found = {}
    for name in names:
        group = f"{name.partition('/')[0]}/"
        if name in MEANING:
            found[name] = MEANING[name]
        elif "/" in name and group in MEANING:
            found[f"{group}..."] = MEANING[group]
    return found
