"""Rows of rendered and drawn scenes: GTA5, SYNTHIA, SHIFT, streets.

Numbers of images: Richter et al., ECCV 2016 (GTA5: 24966), Ros et al., CVPR 2016 (SYNTHIA-RAND-CITYSCAPES: 9400). Those
of SHIFT's front camera are not stated where we looked.
"""

from __future__ import annotations

from segda.data.rows.row import Archive, Listed, Row
from segda.data.streets.conditions import CONDITIONS, SPLITS

SHIFT_TABLE = "discrete/images/{split}/front/seq.csv"

RENDERED: dict[str, Row] = {
    "gta5": Row(
        doc="GTA5 (Playing for Data), about 1914x1052, 19 classes",
        page="https://download.visinf.tu-darmstadt.de/data/from_games/",
        space="cityscapes-19",
        splits=("train", "official-train", "official-val", "official-test"),
        folders=("gta5", "GTA5", "gta", "gtav"),
        images=("images/{key}.png",),
        labels=(("labels/{key}.png", "gta5"),),
        archives=(Archive("*_images.zip", "images/"), Archive("*_labels.zip", "labels/")),
        lists={
            f"official-{split}": Listed("split.mat", "numbers in MATLAB's file", f"{split}Ids")
            for split in ("train", "val", "test")
        },
        counts={"train": 24966, "official-train": 12403, "official-val": 6382, "official-test": 6181},
        no_labels=("*_labelTrainIds.png",),  # written beside them by DAFormer's converter
    ),
    "shift": Row(
        doc="SHIFT, discrete set, front camera, 1280x800, 14 of its classes; weather and time of day",
        page="https://www.vis.xyz/shift/download/",
        space="shift-14",
        splits=("train", "val", "test"),
        folders=("shift", "SHIFT", "SHIFT_dataset"),
        images=("discrete/images/{split}/front/img/{sequence}/{key}_img_front.jpg",),
        labels=(("discrete/images/{split}/front/semseg/{sequence}/{key}_semseg_front.png", "shift"),),
        decoders={"discrete/images/{split}/front/semseg/{sequence}/{key}_semseg_front.png": "red channel"},
        archives=tuple(
            Archive(f"discrete/images/{split}/front/{group}.zip", f"discrete/images/{split}/front/{group}/")
            for split in ("train", "val", "test")
            for group in ("img", "semseg")
        ),
        lists={
            name.replace("/", "-"): Listed(SHIFT_TABLE, "table", f"start_{column}_coarse={name}", by="sequence")
            for column, names in (
                ("weather", ("clear", "cloudy", "overcast", "rainy", "foggy")),
                ("timeofday", ("daytime", "dawn/dusk", "night")),
            )
            for name in names
        },
        name_with=("sequence",),
    ),
    "streets": Row(
        doc="drawn street scenes, 512x256, 19 classes; no files needed",
        page="nowhere: it is drawn",
        space="cityscapes-19",
        splits=tuple(SPLITS),
        labels=(("", "cityscapes-train"),),
        conditions={name: () for name in CONDITIONS},
    ),
    "synthia": Row(
        doc="SYNTHIA-RAND-CITYSCAPES, 1280x760, 16 classes",
        page="https://synthia-dataset.net/downloads/",
        space="synthia-16",
        splits=("train",),
        folders=("synthia", "SYNTHIA", "RAND_CITYSCAPES", "synthia/RAND_CITYSCAPES", "SYNTHIA_RAND_CITYSCAPES"),
        images=("RGB/{key}.png",),
        labels=(
            ("GT/LABELS/{key}.png", "synthia"),
            ("GT/CLASSES/{key}.png", "synthia"),  # 8-bit ids, as ESL reads them
            ("parsed_LABELS/{key}.png", "synthia"),  # 8-bit ids, as DADA reads them
        ),
        decoders={"GT/LABELS/{key}.png": "first channel"},
        archives=(
            Archive("SYNTHIA_RAND_CITYSCAPES.rar", ""),
            Archive("SYNTHIA_RAND_CITYSCAPES.zip", "RGB/"),
            Archive("SYNTHIA_RAND_CITYSCAPES.zip", "GT/"),
        ),
        no_labels=("*_labelTrainIds.png",),
        counts={"train": 9400},
    ),
}
