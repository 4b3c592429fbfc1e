"""Files that were made to do harm: code in YAML, what unpacks to any size, headers that lie."""

from __future__ import annotations

import ast
import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hostile import Evil, refused, seal
from layouts import encoded, png
from segda import run as runs
from segda.data.files.archives import members, read_bytes
from segda.data.files.images import MEGAPIXELS, SCANS, read_ids, read_image
from segda.data.files.photos import read_photo
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.data.sets.folders import folder_row
from segda.errors import DataError, RecipeError
from segda.ground.safe_yaml import VALUES, yaml_values
from segda.pseudo_labelling.rules import RULES, rule_spec
from segda.recipes.build import check
from segda.recipes.recipe import load_recipe
from segda.recipes.sweeps import load_sweep

SOURCE = Path(runs.__file__).parent


# Code


def test_code_in_kept_class_statistics_is_not_run(tmp_path, camvid, warned):
    mark = tmp_path / "was run"
    data = open_data("camvid:train:day", camvid)
    counts = class_statistics(data, tmp_path / "cache", workers=0)
    (kept,) = (tmp_path / "cache").glob("*.npz")
    content = io.BytesIO()
    np.savez(content, counts=np.array([Evil(mark)], object), fingerprint=np.array([Evil(mark)], object))
    kept.write_bytes(seal(content.getvalue()))
    assert (class_statistics(data, tmp_path / "cache", workers=0) == counts).all()
    assert "counted again" in "".join(warned)
    assert not mark.exists()


def test_every_reader_in_the_source_reads_data_alone():
    """numpy without pickles, torch with weights_only, YAML and JSON by safe_yaml.py, and no pickle at all."""
    seen = {"load": 0}
    for path in SOURCE.rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            given = {word.arg: ast.unparse(word.value) for word in call.keywords}
            if name == "np.load":
                assert given.get("allow_pickle") == "False", path
            elif name == "torch.load":
                assert given.get("weights_only") == "True", path
            seen["load"] += name in ("np.load", "torch.load")
            assert name not in ("pickle.load", "pickle.loads", "np.fromregex", "eval", "exec", "torch.jit.load"), path
            assert path.name == "safe_yaml.py" or name not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"), path
    assert seen["load"] >= 3


PYTHON = "!!python/object/apply:os.system [\"touch '{mark}'\"]"


def test_code_in_yaml_is_not_run(tmp_path):
    mark = tmp_path / "was run"
    python = PYTHON.format(mark=mark)
    for text in (python, f"a: [{python}]", f"? {python}\n: 1", f"seed: &x {python}\nsteps: *x"):
        path = tmp_path / "x.yaml"
        path.write_text(text)
        for call, what in ((load_recipe, path), (load_sweep, path), (folder_row, str(path))):
            assert "x.yaml" in refused(call, what, kind=RecipeError)
        refused(load_recipe("advent_streets").override, f"steps={python}", kind=RecipeError)
        refused(rule_spec, "fixed", [f"level={python}"], kind=RecipeError)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["os:system", "subprocess:Popen", "builtins:exec", ":x", ".a:b", "a\0:b", "torch:load"]
)
def test_a_recipe_calls_nothing_but_modules_of_torch(name, recipe, tmp_path):
    for key in ("method", "network"):
        refused(recipe.override, f"{key}={{name: {json.dumps(name)}, command: ls, args: [ls]}}", kind=RecipeError)
    refused(check, RULES, {"name": name, "command": f"touch {tmp_path}/x"}, "rule", (), kind=RecipeError)
    assert not (tmp_path / "x").exists()


def test_a_module_of_torch_that_is_no_method_or_network_is_refused(recipe):
    assert "is no method" in refused(recipe.override, "method={name: 'torch.nn:Identity'}", kind=RecipeError)
    assert "takes no class_names" in refused(recipe.override, "network={name: 'torch.nn:Identity'}", kind=RecipeError)


# Texts

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x0: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}], x{n}: 1}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, f"more than {VALUES} values"),
        (MERGES, f"more than {VALUES} values"),
        ("a: &a [*a]", "inside what it stands for"),
        ("[" * 5000, "nested too deeply"),
        ("{a: " * 5000, "nested too deeply"),
        ("a: " + "x" * 300_000, "more than 200000"),
        ("when: 2001-99-99", "not valid YAML"),
        ("a: 0b_", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: !!float ''", "not valid YAML"),
        ("a: !!bool perhaps", "not valid YAML"),
        ('a: "\\ud800"', "not valid YAML"),
        ("a: 1\na: 2", "'a' is written twice"),
    ],
    ids=lambda value: value[:12],
)
def test_a_yaml_bomb_is_refused_by_all_who_read_yaml(tmp_path, text, message):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    for call, what in ((load_recipe, path), (load_sweep, path), (folder_row, str(path))):
        assert message in refused(call, what, kind=RecipeError)


def test_an_alias_that_is_no_bomb_is_read():
    assert yaml_values("a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 3}") == {
        "a": {"x": [1, 2]},
        "b": {"x": [1, 2]},
        "c": {"x": [1, 2], "y": 3},
    }


def test_a_pipe_is_no_recipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "it is a pipe" in refused(load_recipe, tmp_path / "pipe.yaml", kind=RecipeError)


def test_a_sweep_of_too_many_runs_is_refused(tmp_path):
    axes = {key: list(range(100)) for key in ("seed", "steps", "save_every", "log_every", "keep")}
    (tmp_path / "x.yaml").write_text(json.dumps({"recipe": "advent_streets", "axes": axes}))
    assert "10000000000 combinations" in refused(load_sweep, tmp_path / "x.yaml", kind=RecipeError)


@pytest.mark.parametrize(
    "images",
    ["{0}/x.png", "{key.__class__}.png", "{key:>9999999999}.png", "{key}{key}.png", "{other}/{key}.png", "{", "a*" * 9],
)
def test_a_path_in_a_folders_file_is_no_format_string(tmp_path, images):
    for split in ({"images": images}, {"images": "i", "labels": images}):
        told = {"splits": {"train": split}, "classes": {"a": {"id": 0}}}
        (tmp_path / "x.yaml").write_text(json.dumps(told))
        assert "splits.train" in refused(folder_row, str(tmp_path / "x.yaml"), "train", kind=RecipeError)


# Archives


def archive_of(path: Path, name: str | zipfile.ZipInfo, content: bytes = b"x", kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content, kind)
    return path


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "..\\x.png", "a\\..\\x.png"])
def test_a_member_that_leads_out_of_its_archive_is_refused(tmp_path, name):
    assert "leads out of the archive" in refused(members, archive_of(tmp_path / "x.zip", name), kind=DataError)


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(encoded(np.zeros((2, 2, 3), np.uint8)))
    link = zipfile.ZipInfo("a.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    path = archive_of(tmp_path / "x.zip", link, str(tmp_path / "secret").encode())
    assert read_bytes(path / "a.png") == str(tmp_path / "secret").encode()
    assert "neither a PNG nor a JPEG" in refused(read_image, path / "a.png", kind=DataError)


def test_a_member_that_is_larger_than_its_archive_says_is_not_unpacked_on(tmp_path):
    path = archive_of(tmp_path / "x.zip", "a.png", bytes(64 << 20), zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    size = struct.pack("<I", 64 << 20)
    assert content.count(size) == 2, "in front of the member and in the list of members"
    path.write_bytes(content.replace(size, struct.pack("<I", 1000)))
    assert "is damaged at a.png" in refused(read_bytes, path / "a.png", kind=DataError)
    path.write_bytes(content.replace(size, struct.pack("<I", 3 << 30)))
    assert "3072 megabytes unpacked, more than 512" in refused(read_bytes, path / "a.png", kind=DataError)


def test_a_compression_that_unpacks_without_end_is_refused(tmp_path):
    for kind in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        path = archive_of(tmp_path / f"{kind}.zip", "a.png", bytes(1 << 20), kind)
        assert "cannot be read in place" in refused(read_bytes, path / "a.png", kind=DataError)


# Pictures

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def ihdr(width: int, height: int, colour: int) -> bytes:
    return struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)


def jpeg_of_size(width: int, height: int, **options) -> bytes:
    """A small JPEG whose header says another size."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "JPEG", **options)
    content = bytearray(file.getvalue())
    at = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize("reader", [read_image, read_ids])
def test_a_picture_of_30000_by_30000_is_refused_before_it_is_decoded(tmp_path, reader, monkeypatch):
    monkeypatch.setattr("cv2.imdecode", None)
    monkeypatch.setattr("PIL.Image.open", None)
    colour = 2 if reader is read_image else 0
    for content in (png(30_000, 30_000, 8, colour, bytes(99)), jpeg_of_size(30_000, 30_000)):
        path = tmp_path / "bomb"
        path.write_bytes(content)
        assert len(content) < 1000
        assert f"30000x30000 is more than {MEGAPIXELS} megapixels" in refused(reader, path, kind=DataError)


def test_bombs_of_the_kinds_that_predict_reads_are_refused(tmp_path):
    rows = struct.pack("<IiiHHIIiiII", 40, 12_000, 12_000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "x.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 54 + 1000, 0, 0, 54) + rows + bytes(1000))
    assert "12000x12000 is more than" in refused(read_photo, tmp_path / "x.bmp", kind=DataError)
    huge = (
        b"BM" + struct.pack("<IHHI", 1054, 0, 0, 54) + rows.replace(struct.pack("<i", 12_000), struct.pack("<i", 2**30))
    )
    (tmp_path / "x.bmp").write_bytes(huge + bytes(1000))
    assert "cannot be decoded" in refused(read_photo, tmp_path / "x.bmp", kind=DataError)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        # Pillow takes the last header there is, wherever it stands; so the one that was looked at must be the only one.
        ([(b"tEXt", ihdr(64, 48, 0)), (b"IHDR", ihdr(9000, 9900, 0))], "damaged at its start"),
        ([(b"IHDR", ihdr(64, 48, 0)), (b"IHDR", ihdr(9000, 9900, 0))], "has a second header"),
        ([(b"IHDR", ihdr(64, 48, 0)), (b"acTL", struct.pack(">II", 2, 0))], "has several pictures"),
        ([(b"IHDR", ihdr(64, 48, 0)), (b"IDAT", bytes(200_000))], "has more data than its pixels need"),
    ],
    ids=["first", "second", "animation", "data"],
)
def test_a_png_of_two_minds_is_refused(tmp_path, parts, message):
    for colour, reader in ((0, read_ids), (2, read_image)):
        told = [(name, content.replace(ihdr(64, 48, 0), ihdr(64, 48, colour))) for name, content in parts]
        rows = zlib.compress(bytes(48 * (1 + 64 * (3 if colour else 1))))
        content = SIGNATURE + b"".join(chunk(*one) for one in [*told, (b"IDAT", rows), (b"IEND", b"")])
        (tmp_path / "x.png").write_bytes(content)
        assert message in refused(reader, tmp_path / "x.png", kind=DataError)


def test_a_jpeg_of_endless_scans_is_refused(tmp_path):
    content = jpeg_of_size(8, 8, progressive=True)
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    assert read_image(path).shape == (3, 8, 8)
    last = content[content.rfind(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + last * SCANS + content[-2:])
    assert f"scans, more than {SCANS}" in refused(read_image, path, kind=DataError)
