"""Rows of Cityscapes: fine and coarse labels, fog and rain drawn into it.

Numbers of images: cityscapes-dataset.com (fine 2975/500/1525, coarse 19998 more; three betas of fog for each image),
READMEs of Foggy Cityscapes and its DBF version, Hu et al., CVPR 2019 (rain: 262 and 33 images, 36 times each).
"""

from __future__ import annotations

from segda.data.rows.row import Archive, Listed, Row

PAGE = "https://www.cityscapes-dataset.com/downloads/"

FOG = {beta: (f"*_beta_{beta}",) for beta in ("0.005", "0.01", "0.02")}
RAIN = {alpha: (f"*_alpha_{alpha}_*",) for alpha in ("0.01", "0.02", "0.03")}
PATTERNS = {f"pattern-{k}": (f"*_pattern_{k}",) for k in range(1, 13)}

FINE = (
    ("gtFine/{split}/{city}/{key}_gtFine_labelIds.png", "cityscapes"),
    ("gtFine/{split}/{city}/{key}_gtFine_labelTrainIds.png", "cityscapes-train"),
    ("gtFine/{split}/{city}/{key}_gtFine_instanceIds.png", "cityscapes"),
    ("gtFine/{split}/{city}/{key}_gtFine_polygons.json", "cityscapes"),
)
COARSE = tuple((template.replace("gtFine", "gtCoarse"), labelling) for template, labelling in FINE)
DECODERS = {
    template: decoder
    for templates in (FINE, COARSE)
    for (template, _), decoder in zip(templates[2:], ("instances", "polygons of Cityscapes"), strict=True)
}
GT_FINE = Archive("gtFine_trainvaltest.zip", "gtFine/")
REFINED = Listed("foggy_trainval_refined_filenames.txt", ending="_leftImg8bit")

CITYSCAPES: dict[str, Row] = {
    "cityscapes": Row(
        doc="Cityscapes, 2048x1024, 19 classes",
        page=PAGE,
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("cityscapes", "Cityscapes"),
        images=("leftImg8bit/{split}/{city}/{key}_leftImg8bit.png",),
        labels=FINE,
        decoders=DECODERS,
        archives=(Archive("leftImg8bit_trainvaltest.zip", "leftImg8bit/"), GT_FINE),
        counts={"train": 2975, "val": 500, "test": 1525},
    ),
    "cityscapes-coarse": Row(
        doc="Cityscapes with coarse labels, and 20,000 images more that have no others",
        page=PAGE,
        space="cityscapes-19",
        splits=("train", "val", "train_extra"),
        folders=("cityscapes", "Cityscapes"),
        images=("leftImg8bit/{split}/{city}/{key}_leftImg8bit.png",),
        labels=COARSE,
        decoders=DECODERS,
        archives=(
            Archive("leftImg8bit_trainvaltest.zip", "leftImg8bit/"),
            Archive("leftImg8bit_trainextra.zip", "leftImg8bit/"),
            Archive("gtCoarse.zip", "gtCoarse/"),
        ),
        counts={"train": 2975, "val": 500, "train_extra": 19998},
    ),
    "cityscapes-foggy": Row(
        doc="Foggy Cityscapes; the condition is the attenuation beta per metre",
        page=PAGE,
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("cityscapes-foggy", "foggy_cityscapes", "cityscapes", "Cityscapes"),
        images=("leftImg8bit_foggy/{split}/{city}/{key}_leftImg8bit_foggy_beta_*.png",),
        labels=FINE,
        decoders=DECODERS,
        archives=(Archive("leftImg8bit_trainvaltest_foggy.zip", "leftImg8bit_foggy/"), GT_FINE),
        conditions=FOG,
        lists={"refined": REFINED},
        counts={"train": 8925, "val": 1500, "test": 4575, "train:refined": 1494, "val:refined": 156},
        shared_labels=True,
    ),
    "cityscapes-foggy-dbf": Row(
        doc="Foggy Cityscapes-DBF: its fog follows the edges of the labels; no test images",
        page=PAGE,
        space="cityscapes-19",
        splits=("train", "val"),
        folders=("cityscapes-foggy-dbf", "cityscapes-foggy", "foggy_cityscapes", "cityscapes", "Cityscapes"),
        images=(
            "leftImg8bit_foggyDBF/{split}/{city}/{key}_leftImg8bit_foggy_beta_*.png",
            "leftImg8bit_foggyDBF/{split}/{city}/{key}_leftImg8bit_foggyDBF_beta_*.png",
        ),
        labels=FINE,
        decoders=DECODERS,
        archives=(Archive("leftImg8bit_trainval_foggyDBF.zip", "leftImg8bit_foggyDBF/"), GT_FINE),
        conditions=FOG,
        lists={"refined": REFINED},
        counts={"train": 8925, "val": 1500, "train:refined": 1494, "val:refined": 156},
        shared_labels=True,
    ),
    "cityscapes-rain": Row(
        doc="Rain Cityscapes; the condition is the rain's alpha, or one of its twelve patterns",
        page=PAGE,
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("cityscapes-rain", "rain_cityscapes", "cityscapes", "Cityscapes"),
        images=("leftImg8bit_rain/{split}/{city}/{key}_leftImg8bit_rain_*.png",),
        labels=FINE,
        decoders=DECODERS,
        archives=(Archive("leftImg8bit_trainval_rain.zip", "leftImg8bit_rain/"), GT_FINE),
        conditions=RAIN | PATTERNS,
        counts={"train": 9432, "val": 1188},
        shared_labels=True,
    ),
}
