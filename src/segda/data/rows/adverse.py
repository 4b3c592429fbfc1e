"""Rows of data sets in bad weather and at night.

Numbers of images: Sakaridis et al., ICCV 2021 (ACDC: 4006 images, 1600/406/2000) and ICCV 2019 (Dark Zurich: 3041 of
day, 2920 of twilight, 2416 of night, 50 and 151 with labels), Brödermann et al., ECCV 2024 (MUSES: 2500 scenes,
1500/250/750), Tan et al., TIP 2021 (NightCity: 2998/1299).
"""

from __future__ import annotations

from segda.data.rows.row import Archive, Listed, Row

MASKS = {"_gt_invIds.png": 1, "_gt_invGray.png": 255}
"""Of what cannot be recognised, in ACDC and Dark Zurich; the files have not been seen: any other value is refused."""

ACDC_ARCHIVES = (Archive("rgb_anon_trainvaltest.zip", "rgb_anon/"), Archive("gt_trainval.zip", "gt/"))
DARK_ZURICH_ARCHIVES = tuple(
    Archive(f"Dark_Zurich_{part}.zip", holds)
    for part, splits in (
        ("train_anon", ("train",)),
        ("val_anon", ("val", "val_ref")),
        ("test_anon_withoutGt", ("test", "test_ref")),
    )
    for split in splits
    for holds in (f"rgb_anon/{split}/", f"gt/{split}/", f"corresp/{split}/")
)
WEATHER = {name: (name,) for name in ("fog", "night", "rain", "snow")}

ADVERSE: dict[str, Row] = {
    "acdc": Row(
        doc="ACDC, 1920x1080, 19 classes; fog, night, rain and snow",
        page="https://acdc.vision.ee.ethz.ch/download",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("acdc", "ACDC"),
        images=("rgb_anon/{condition}/{split}/{sequence}/{key}_rgb_anon.png",),
        labels=(
            ("gt/{condition}/{split}/{sequence}/{key}_gt_labelTrainIds.png", "cityscapes-train"),
            ("gt/{condition}/{split}/{sequence}/{key}_gt_labelIds.png", "cityscapes"),
        ),
        layouts=(  # as DAFormer wants them: all conditions and sequences of a split in one folder
            (
                ("rgb_anon/{split}/{key}_rgb_anon.png",),
                (
                    ("gt/{split}/{key}_gt_labelTrainIds.png", "cityscapes-train"),
                    ("gt/{split}/{key}_gt_labelIds.png", "cityscapes"),
                ),
            ),
        ),
        archives=ACDC_ARCHIVES,
        invalid=tuple(("gt/{condition}/{split}/{sequence}/{key}" + end, value) for end, value in MASKS.items()),
        conditions=WEATHER,
        counts={"train": 1600, "val": 406, "test": 2000},
    ),
    "acdc-ref": Row(
        doc="ACDC's reference images: the places of each image in normal conditions",
        page="https://acdc.vision.ee.ethz.ch/download",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("acdc", "ACDC"),
        images=("rgb_anon/{condition}/{split}_ref/{sequence}/{key}_rgb_ref_anon.png",),
        labels=(
            ("gt/{condition}/{split}_ref/{sequence}/{key}_gt_ref_labelTrainIds.png", "cityscapes-train"),
            ("gt/{condition}/{split}_ref/{sequence}/{key}_gt_ref_labelIds.png", "cityscapes"),
        ),
        archives=ACDC_ARCHIVES,
        conditions=WEATHER,
        counts={"train": 1600, "val": 406, "test": 2000},
    ),
    "bdd100k": Row(
        doc="BDD100K, the 10k images with segmentation, 1280x720, 19 classes; a list of those at night",
        page="https://bdd-data.berkeley.edu/",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("bdd100k", "BDD100K", "bdd", "bdd10k"),
        images=("images/10k/{split}/{key}.jpg",),
        labels=(("labels/sem_seg/masks/{split}/{key}.png", "cityscapes-train"),),
        layouts=(
            (("seg/images/{split}/{key}.jpg",), (("seg/labels/{split}/{key}_train_id.png", "cityscapes-train"),)),
        ),
        archives=(
            Archive("bdd100k_images_10k.zip", "images/10k/"),
            Archive("bdd100k_sem_seg_labels_trainval.zip", "labels/sem_seg/"),
            Archive("bdd100k_seg.zip", "seg/"),
        ),
        lists={"night": Listed("images_trainval_night_correct_filenames.txt")},
        counts={"train": 7000, "val": 1000, "test": 2000},
    ),
    "dark-zurich": Row(
        doc="Dark Zurich, 1920x1080, 19 classes; day, twilight and night",
        page="https://www.trace.ethz.ch/publications/2019/GCMA_UIoU/",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("dark-zurich", "dark_zurich", "Dark_Zurich", "DarkZurich"),
        images=("rgb_anon/{split}/{condition}/{sequence}/{key}_rgb_anon.png",),
        labels=(
            ("gt/{split}/{condition}/{sequence}/{key}_gt_labelTrainIds.png", "cityscapes-train"),
            ("gt/{split}/{condition}/{sequence}/{key}_gt_labelIds.png", "cityscapes"),
        ),
        archives=DARK_ZURICH_ARCHIVES,
        invalid=tuple(("gt/{split}/{condition}/{sequence}/{key}" + end, value) for end, value in MASKS.items()),
        conditions={name: (name,) for name in ("day", "twilight", "night")},
        counts={"train:day": 3041, "train:twilight": 2920, "train:night": 2416, "val": 50, "test": 151},
    ),
    "dark-zurich-ref": Row(
        doc="Dark Zurich's reference images: the places of its val and test images by day; no labels are published",
        page="https://www.trace.ethz.ch/publications/2019/GCMA_UIoU/",
        space="cityscapes-19",
        splits=("val", "test"),
        folders=("dark-zurich", "dark_zurich", "Dark_Zurich", "DarkZurich"),
        # The names of test have more behind `_ref`, those of val have not.
        images=("rgb_anon/{split}_ref/day/{sequence}/{key}_rgb_anon.png",),
        labels=(("gt/{split}_ref/day/{sequence}/{key}_gt_labelTrainIds.png", "cityscapes-train"),),
        archives=DARK_ZURICH_ARCHIVES,
        counts={"val": 50, "test": 151},
    ),
    "muses": Row(
        doc="MUSES, the frame camera, 1920x1080, 19 classes; clear, fog, rain and snow, each by day and night",
        page="https://muses.ethz.ch",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("muses", "MUSES"),
        images=("frame_camera/{split}/{weather}/{time}/{key}_frame_camera.png",),
        labels=(
            ("gt_semantic/{split}/{weather}/{time}/{key}_gt_labelTrainIds.png", "cityscapes-train"),
            ("gt_semantic/{split}/{weather}/{time}/{key}_gt_labelIds.png", "cityscapes"),
        ),
        archives=(
            Archive("RGB_Frame_Camera_trainvaltest.zip", "frame_camera/"),
            Archive("Semantic_Annotations_trainval.zip", "gt_semantic/"),
        ),
        conditions={name: (f"weather={name}",) for name in ("clear", "fog", "rain", "snow")}
        | {name: (f"time={name}",) for name in ("day", "night")},
        counts={"train": 1500, "val": 250, "test": 750},
    ),
    "nightcity": Row(
        doc="NightCity, 1024x512, 19 classes, night; also with the corrected labels of NightCity-fine",
        page="https://dmcv.sjtu.edu.cn/people/phd/tanxin/NightCity/index.html",
        space="cityscapes-19",
        splits=("train", "val"),
        folders=("nightcity", "NightCity", "nightcity-fine", "night_city"),
        images=("NightCity-images/images/{split}/{key}.png",),
        labels=(
            ("NightCity-label/label/{split}/{key}_trainIds.png", "cityscapes-train"),
            ("NightCity-label/label/{split}/{key}_labelIds.png", "cityscapes"),
        ),
        layouts=(
            (
                ("{split}/img/{key}.png",),
                (
                    ("{split}/lbl/{key}_trainIds.png", "cityscapes-train"),
                    ("{split}/lbl/{key}_labelIds.png", "cityscapes"),
                ),
            ),
        ),
        archives=(
            Archive("NightCity-images.zip", "NightCity-images/"),
            Archive("NightCity-label.zip", "NightCity-label/"),
        ),
        counts={"train": 2998, "val": 1299},
    ),
}
