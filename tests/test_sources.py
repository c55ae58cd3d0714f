from __future__ import annotations

import copy
import io
import json
import pickle
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.datasets import FakeData

from classgraft.data.decode import BadImage
from classgraft.data.sources import Photo, Source, load, open_files, open_source, open_sources
from classgraft.errors import InputError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def picture(value: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (value, value, value)).save(buffer, form)
    return buffer.getvalue()


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def table(
    path: Path, labels: pa.Array, names: Sequence[str] | None = None, images: pa.Array | None = None, rows: int = 2
) -> Path:
    """A parquet file with `rows` rows a group, as Hugging Face writes it; image i is grey of value i."""
    path.parent.mkdir(exist_ok=True)
    if images is None:
        images = pa.array([{"bytes": picture(i), "path": f"../{i}.png"} for i in range(len(labels))])
    made = pa.table({"image": images, "label": labels})
    if names is not None:
        feature = {"names": list(names), "_type": "ClassLabel"}
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(made, path, row_group_size=rows)
    return path


def greys(source: Source) -> list[int]:
    pixels = load(source, 2).pixels
    assert pixels.shape == (len(source.photos), 3, 2, 2)
    return [int(value) for value in pixels[:, 0, 0, 0]]


# Folders


def test_a_folder_of_classes(tmp_path: Path) -> None:
    root = folder(
        tmp_path,
        {
            "tulip/b.PNG": picture(1),
            "tulip/deep/er/a.jpeg": picture(2, "JPEG"),
            f"{DECOMPOSED}/x.png": picture(3),  # before cafz by its bytes, after it by its name
            "cafz/x.png": picture(5),
            "Rose/x.png": picture(4),
            "Rose/notes.txt": b"",
            "Rose/b.HEIC": b"",
            "Rose/film.mov": b"",
            "Rose/Thumbs.db": b"",
            "Rose/.hidden.png": b"",
            "Rose/.cache/x.png": b"",
            "Rose/__MACOSX/x.png": b"",
            "__MACOSX/x.png": b"",
            ".git/x.png": b"",
            "desktop.ini": b"",
            "README": b"",
            "a.svg": b"",
        },
    )
    source = open_source(root)
    assert source.classes == ("Rose", "cafz", COMPOSED, "tulip")
    assert [photo.name for photo in source.photos] == [
        "Rose/x.png",
        "cafz/x.png",
        f"{DECOMPOSED}/x.png",
        "tulip/b.PNG",
        "tulip/deep/er/a.jpeg",
    ]
    assert source.labels == (0, 1, 2, 3, 3)
    assert source.unread == ("Rose/b.HEIC", "Rose/film.mov", "a.svg")  # nobody means the others as photos
    assert source.photos[3].read() == picture(1)
    assert greys(open_source(str(root))) == [4, 5, 3, 1, 2]


def test_images_without_an_extension_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    files = {f"rose/{kind}": picture(5, form=kind) for kind in ("JPEG", "PNG", "GIF", "WEBP")}
    files |= {"rose/README": b"no picture", "rose/empty": b"", "rose/sound": b"RIFF1234WAVE", "beside": picture(1)}
    source = open_source(folder(tmp_path, files))
    assert [photo.name for photo in source.photos] == ["rose/GIF", "rose/JPEG", "rose/PNG", "rose/WEBP"]
    assert greys(source) == pytest.approx([5] * 4, abs=1)
    assert source.unread == ("beside",)


def test_opening_reads_no_image(tmp_path: Path) -> None:
    root = folder(tmp_path, {"rose/a.png": picture(1)})
    source = open_source(root)
    (root / "rose" / "a.png").write_bytes(picture(9))
    assert greys(source) == [9]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds no class"),
        ({"a.png": b"", "b.png": b""}, "holds no class"),
        ({"rose/a.png": b"", "tulip/x.txt": b"", "tulip/y.heic": b""}, "class 'tulip' is empty.*2 other files.*.jpg"),
        ({f"{COMPOSED}/a.png": b"", f"{DECOMPOSED}/a.png": b""}, r"two folders for class 'café'.*\\u0301"),
        ({"ro\nse/a.png": b""}, "unprintable"),
        ({"ro\udcffse/a.png": b""}, "unprintable"),
        ({"train/rose/a.png": b"", "test/rose/b.png": b""}, r"splits \(test, train\)"),
        ({"data.zip": b""}, "holds no class"),
        (
            {"flowers/rose/a.png": b"", "flowers/tulip/b.png": b""},
            r"one folder, 'flowers', with .*rose, tulip.*/flowers'",
        ),
        ({"train/rose/a.png": b""}, r"one folder, 'train', with folders of its own \(rose\): give '.*/train'"),
    ],
)
def test_a_folder_that_is_no_source(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        open_source(folder(tmp_path, files))
    assert tmp_path.name in str(error.value)


@pytest.mark.parametrize(
    "files",
    [
        ("rose/monday/a.png", "rose/tuesday/b.png", "tulip/a.png"),
        ("rose/monday/a.png", "rose/tuesday/b.png", "rose/c.png"),
        ("rose/whole/a.png", "rose/whole/b.png"),
        ("train/a.png",),
    ],
)
def test_a_class_may_have_folders_in_its_own(tmp_path: Path, files: tuple[str, ...]) -> None:
    source = open_source(folder(tmp_path, dict.fromkeys(files, picture(1))))
    assert source.classes == tuple(sorted({name.split("/")[0] for name in files}))
    assert len(source.photos) == len(files)


def test_a_path_that_is_no_source(tmp_path: Path) -> None:
    folder(tmp_path, {"rose.zip": b"", "rose.parquet": b"not parquet"})
    for name, says in [
        ("absent", "does not exist"),
        ("rose.zip", "no image source"),
        ("rose.parquet", "not a readable"),
    ]:
        with pytest.raises(InputError, match=says) as error:
            open_source(tmp_path / name)
        assert name in str(error.value)


@pytest.mark.parametrize("name", ["rose/b.png", "rose/more", "tulip"])
@pytest.mark.parametrize("there", [True, False])
def test_links_that_lead_out_are_refused(tmp_path: Path, name: str, there: bool) -> None:
    root = folder(tmp_path / "in", {"rose/a.png": picture(1)})
    if there:
        folder(tmp_path / "out", {"x.png": picture(2)})
    (root / name).symlink_to(tmp_path / "out" / ("x.png" if name.endswith("png") else ""))
    with pytest.raises(InputError, match=f"{name}' is a link that leads out"):
        open_source(root)
    if name != "tulip":
        with pytest.raises(InputError, match="leads out"):
            open_files([root / "rose"])


def test_links_inside_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", {"rose/a.png": picture(1), "tulip/b.png": picture(2)})
    (root / "rose" / "c.png").symlink_to(root / "tulip" / "b.png")
    (root / "rose" / "up").symlink_to(root / "rose")
    (root / "rose" / "over").symlink_to(root / "tulip")
    (root / "tulip" / "back").symlink_to(root / "rose")
    (root / "rose" / "self.png").symlink_to(root / "rose" / "self.png")
    (root / "lily").symlink_to(root / "tulip")
    (tmp_path / "alias").symlink_to(root)
    source = open_source(tmp_path / "alias")
    names = [photo.name for photo in source.photos]
    assert source.classes == ("lily", "rose", "tulip")
    assert [name for name in names if name.startswith("rose")] == ["rose/a.png", "rose/c.png", "rose/over/b.png"]
    assert greys(source)[names.index("rose/a.png") :][:3] == [1, 2, 2]


# Files


def test_files_and_flat_folders(tmp_path: Path) -> None:
    root = folder(tmp_path, {"one": picture(1), "flat/b.png": picture(3), "flat/a.png": picture(2), "flat/t.cr2": b""})
    source = open_files([root / "one", root / "flat", str(root / "flat" / "b.png")])
    assert source.classes == source.labels == ()
    assert source.unread == ("t.cr2",)
    assert [photo.name for photo in source.photos] == [
        str(root / name) for name in ("one", "flat/a.png", "flat/b.png", "flat/b.png")
    ]
    assert greys(source) == [1, 2, 3, 3]
    assert load(source, 2).labels.shape == (0,)


def test_one_path_is_one_source(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a.png": picture(1), "b.png": picture(2)})
    assert greys(open_files(root / "b.png")) == greys(open_files(str(root / "b.png"))) == [2]
    assert greys(open_files(str(root))) == greys(open_files(open_files(root))) == [1, 2]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.png' does not exist"):
        open_files([tmp_path / "absent.png"])
    with pytest.raises(InputError, match="holds no image"):
        open_files([tmp_path])
    with pytest.raises(InputError, match="no images are given"):
        open_files([])


def test_a_file_name_that_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
    try:
        folder(tmp_path, {"flat/ro\udcffse.png": picture(1)})
    except OSError:
        pytest.skip("this file system allows no such names")
    source = open_files([tmp_path / "flat"])
    assert source.photos[0].name.encode().endswith(rb"ro\udcffse.png")
    assert greys(source) == [1]


# Parquet


def test_a_table_with_named_labels(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", pa.array([2, 0, 2, 2, 0]), ["zinnia", "no row bears this", DECOMPOSED])
    source = open_source(path)
    assert source.classes == ("zinnia", COMPOSED)
    assert source.labels == (1, 0, 1, 1, 0)
    assert [photo.name for photo in source.photos] == [f"t.parquet[{i}]" for i in range(5)]
    assert greys(source) == [0, 1, 2, 3, 4]
    assert [photo.read() for photo in reversed(source.photos)] == [picture(i) for i in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (pa.array([10, 9, 10]), ("9", "10"), (1, 0, 1)),
        (pa.array([3, 3, 0], pa.uint8()), ("0", "3"), (1, 1, 0)),
        (pa.array(["tulip", "rose", "tulip"]), ("rose", "tulip"), (1, 0, 1)),
        (pa.array([DECOMPOSED, "cafz", DECOMPOSED]), ("cafz", COMPOSED), (1, 0, 1)),
        (pa.array(["tulip", "rose", "tulip"], pa.large_string()), ("rose", "tulip"), (1, 0, 1)),
        (pa.array(["tulip", "rose", "tulip"]).dictionary_encode(), ("rose", "tulip"), (1, 0, 1)),
    ],
)
def test_labels_without_names(tmp_path: Path, labels: pa.Array, classes: Any, expected: Any) -> None:
    source = open_source(table(tmp_path / "t.parquet", labels))
    assert source.classes == classes
    assert source.labels == expected


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_plain_binary_column(tmp_path: Path, kind: pa.DataType) -> None:
    images = pa.array([picture(7), picture(8)], kind)
    assert greys(open_source(table(tmp_path / "T.PARQUET", pa.array(["a", "b"]), images=images))) == [7, 8]


def test_shards_follow_one_another(tmp_path: Path) -> None:
    for i in range(3):
        table(tmp_path / f"train-0000{i}-of-00003.parquet", pa.array([f"class {i}", "shared"]))
    (tmp_path / "README.md").write_text("a data set")
    source = open_source(tmp_path)
    assert source.classes == ("class 0", "class 1", "class 2", "shared")
    assert source.labels == (0, 3, 1, 3, 2, 3)
    assert source.photos[2].name == "train-00001-of-00003.parquet[0]"
    assert greys(source) == [0, 1] * 3


def test_shards_whose_names_end_in_a_hash(tmp_path: Path) -> None:
    for i, end in enumerate(("0a1b2c3d4e5f6789", "fedcba9876543210")):
        table(tmp_path / f"train-0000{i}-of-00002-{end}.parquet", pa.array(["rose", "lily"]))
    assert open_source(tmp_path).labels == (1, 0, 1, 0)
    table(tmp_path / "test-00000-of-00001-0a1b2c3d4e5f6789.parquet", pa.array(["rose"]))
    with pytest.raises(InputError, match="several tables"):
        open_source(tmp_path)


@pytest.mark.parametrize("labels", [pa.array([-1, -1]), pa.array([0.5, 1.0]), None])
def test_labels_that_are_not_taken_are_not_looked_at(tmp_path: Path, labels: pa.Array | None) -> None:
    path = table(tmp_path / "d/t-0.parquet", pa.array([0, 0]) if labels is None else labels)
    if labels is None:
        pq.write_table(pq.read_table(path).drop_columns("label"), path)
    for where in (path, path.parent):
        source = open_files([where])
        assert (source.classes, source.labels, greys(source)) == ((), (), [0, 1])
        with pytest.raises(InputError, match=r"t-0\.parquet"):
            open_source(where)


def test_train_and_test_never_flow_together(tmp_path: Path) -> None:
    for name in ("train", "test"):
        table(tmp_path / f"{name}-0.parquet", pa.array(["rose"]))
    with pytest.raises(InputError, match=r"several tables.*test-0\.parquet, train-0\.parquet"):
        open_source(tmp_path)


def test_shards_with_other_labels_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "a0.parquet", pa.array([0, 1]), ["rose", "tulip"])
    table(tmp_path / "a1.parquet", pa.array([0, 1]), ["tulip", "rose"])
    with pytest.raises(InputError, match=r"a1\.parquet.*do not name the same labels"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("labels", "names", "says"),
    [
        (pa.array([0, 2]), ["rose", "tulip"], r"\[1\] has the label 2"),
        (pa.array([0, -1]), ["rose", "tulip"], r"\[1\] has the label -1"),
        (pa.array([0, -1]), None, r"\[1\] has the label -1"),
        (pa.array(["rose", None]), None, r"\[1\] has the label None"),
        (pa.array([0.5, 1.0]), None, "column 'label' holds double"),
        (pa.array([0, 1]), ["rose", "rose"], "'rose' stands at"),
        (pa.array([COMPOSED, DECOMPOSED]), None, "stands at"),
        (pa.array(["rose", ""]), None, "is empty"),
        (pa.array([], pa.int64()), ["rose"], "holds no rows"),
    ],
)
def test_labels_that_name_no_class(tmp_path: Path, labels: pa.Array, names: list[str] | None, says: str) -> None:
    images = pa.array([picture(0)] * len(labels), pa.binary())
    with pytest.raises(InputError, match=says) as error:
        open_source(table(tmp_path / "t.parquet", labels, names, images))
    assert "t.parquet" in str(error.value)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"img": [b""], "label": [0]}, "no column 'image' .it has: img, label"),
        ({"image": [b""], "fine_label": [0]}, "no column 'label'"),
        ({"image": ["a.png"], "label": [0]}, "column 'image' holds string"),
        ({"image": [{"path": "a.png"}], "label": [0]}, "column 'image' holds struct"),
    ],
)
def test_tables_without_the_columns(tmp_path: Path, columns: dict[str, list[Any]], says: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=says):
        open_source(tmp_path / "t.parquet")


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": {"features": {"label": {"names": 3}}}}'])
def test_damaged_metadata(tmp_path: Path, metadata: bytes) -> None:
    made = pa.table({"image": [picture(0)], "label": [0]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(made, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="metadata is damaged"):
        open_source(tmp_path / "t.parquet")


def test_a_row_without_bytes_is_skipped_and_its_path_not_followed(tmp_path: Path) -> None:
    folder(tmp_path, {"secret.png": picture(9)})
    images = pa.array(
        [{"bytes": picture(1), "path": None}, {"bytes": None, "path": str(tmp_path / "secret.png")}, None]
    )
    source = open_source(table(tmp_path / "t.parquet", pa.array(["a", "a", "a"]), images=images))
    assert [photo.read() for photo in source.photos] == [picture(1), b"", b""]
    loaded = load(source, 2)
    assert loaded.names == ("t.parquet[0]",)
    assert all("it is empty" in sentence for sentence in loaded.skipped)
    assert len(loaded.skipped) == 2


def test_a_row_group_is_read_when_needed_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(table(tmp_path / "t.parquet", pa.array(["a"] * 40), rows=10))
    reads = []
    read = pq.ParquetFile.read_row_group

    def counted(self: Any, number: int, **options: Any) -> Any:
        reads.append(number)
        time.sleep(0.01)  # time for another thread to want the same
        return read(self, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    assert source.photos[25].read() == picture(25)
    assert reads == [2]
    assert greys(source) == list(range(40))
    assert sorted(reads) == [0, 1, 2, 3]


def test_a_damaged_row_group_is_the_inputs_fault(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", pa.array(["a"] * 4))
    source = open_source(path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with pytest.raises(InputError, match=r"t\.parquet' is damaged in row group 0"):
        load(source, 2)


def test_photos_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", {"rose/a.png": picture(1)})
    for photo in (*open_source(root).photos, *open_source(table(tmp_path / "t.parquet", pa.array(["a"]))).photos):
        assert pickle.dumps(photo)
        assert copy.copy(photo).read() == photo.read()


# Data sets of Hugging Face


def written(labels: Sequence[Any], names: Sequence[str] | None = None, **more: Any) -> datasets.Dataset:
    """A data set whose image i is grey of value i."""
    kind = (
        datasets.ClassLabel(names=list(names)) if names else datasets.Value("string" if labels[0] == "a" else "int64")
    )
    images = [{"bytes": picture(i), "path": None} for i in range(len(labels))]
    features = {"photo": datasets.Image(), "kind": kind, **{key: datasets.Value("int64") for key in more}}
    return datasets.Dataset.from_dict({"photo": images, "kind": labels, **more}, datasets.Features(features))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_a_saved_data_set_with_named_labels(tmp_path: Path) -> None:
    written([2, 0, 2], ["zinnia", "no row bears this", DECOMPOSED]).save_to_disk(tmp_path / "d")
    source = open_source(f"hf:{tmp_path / 'd'}")
    assert (source.classes, source.labels) == (("zinnia", COMPOSED), (1, 0, 1))
    assert greys(source) == [0, 1, 2]
    assert pickle.dumps(source.photos[2])
    assert copy.copy(source.photos[2]).read() == picture(2)


@pytest.mark.parametrize(("labels", "classes"), [([10, 9, 10], ("9", "10")), (["a", "B", "a"], ("B", "a"))])
def test_labels_of_a_data_set_without_names(tmp_path: Path, labels: list[Any], classes: tuple[str, ...]) -> None:
    written(labels).save_to_disk(tmp_path / "d")
    with pytest.raises(InputError, match="which column is the label; write label=COLUMN with one of: photo, kind"):
        open_source(f"hf:{tmp_path / 'd'}")
    source = open_source(f"hf:{tmp_path / 'd'},label=kind")
    assert (source.classes, source.labels) == (classes, (1, 0, 1))


def test_labels_of_a_data_set_that_are_not_taken_are_not_looked_at(tmp_path: Path) -> None:
    written([-1, 0], ["rose"]).save_to_disk(tmp_path / "d")
    with pytest.raises(InputError, match="-1"):
        open_source(f"hf:{tmp_path / 'd'}")
    assert len(open_files(f"hf:{tmp_path / 'd'}").photos) == 2


def test_the_split_of_a_data_set_must_be_said(tmp_path: Path) -> None:
    parts = {"train": written([0, 1], ["rose", "lily"]), "test": written([1], ["rose", "lily"])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    where = f"hf:{tmp_path / 'd'}"
    with pytest.raises(InputError, match=r"has several splits; write .*,split=NAME with one of: train, test"):
        open_source(where)
    with pytest.raises(InputError, match="has no split 'val'"):
        open_source(f"{where},split=val")
    assert open_source(f"{where},split=test").classes == ("lily",)
    both = open_sources([f"{where},split=test", f"{where},split=train"])
    assert (both.classes, both.labels) == (("lily", "rose"), (0, 1, 0))
    assert greys(both) == [0, 0, 1]


@pytest.mark.usefixtures("cache")
def test_a_folder_of_parquet_files_with_splits(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "d/data").mkdir(parents=True, exist_ok=True)
        table(tmp_path / f"d/data/{part}-00000-of-00001.parquet", pa.array([1, 0]), ["rose", "lily"])
    source = open_source(f"hf:{tmp_path / 'd'},split=test")
    assert (source.classes, greys(source)) == (("rose", "lily"), [0, 1])


@pytest.mark.usefixtures("cache")
def test_a_data_sets_paths_are_followed_inside_it_alone(tmp_path: Path) -> None:
    folder(tmp_path, {"secret.png": picture(9), "d/own.png": picture(7)})
    cells = [{"bytes": None, "path": str(tmp_path / name)} for name in ("secret.png", "d/own.png")]
    images = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table(tmp_path / "d" / "t.parquet", pa.array([0, 0]), ["rose"], images)
    assert [photo.read() for photo in open_source(f"hf:{tmp_path / 'd'}").photos] == [b"", picture(7)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (",splitt=x", "takes no option 'splitt'; there are: split, config, image, label"),
        (",label=colour", "which column is the label"),
        (",image=kind", "which column is the image; write image=COLUMN with one of: photo"),
        (",split=x", "has no splits"),
    ],
)
def test_data_sets_asked_for_in_wrong_words(tmp_path: Path, words: str, says: str) -> None:
    written([0], ["rose"]).save_to_disk(tmp_path / "d")
    with pytest.raises(InputError, match=says):
        open_source(f"hf:{tmp_path / 'd'}{words}")


@pytest.mark.usefixtures("cache")
def test_a_data_set_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("", "nobody/nothing", str(tmp_path / "absent")):
        with pytest.raises(InputError, match=f"hf:{name} cannot be opened"):
            open_source(f"hf:{name}")


# Data sets of torchvision


def digits(root: Path, labels: Sequence[int]) -> Path:
    """MNIST's training files; image i is grey of value i."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.repeat(np.arange(len(labels), dtype=np.uint8), 28 * 28)
    sizes = np.array([len(labels), 28, 28], ">i4").tobytes()
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + bytes(labels))
    return root


def test_a_torchvision_set_has_its_own_class_names(tmp_path: Path) -> None:
    source = open_source(f"torchvision:MNIST,root={digits(tmp_path, [7, 0, 7])},split=train")
    assert (source.classes, source.labels) == (("0 - zero", "7 - seven"), (1, 0, 1))
    assert source.photos[1].name == "torchvision:MNIST[1]"
    assert greys(source) == [0, 1, 2]


def test_a_torchvision_set_without_names_or_files() -> None:
    source = open_source("torchvision:FakeData,size=40,num_classes=3")
    assert source.classes == ("0", "1", "2")
    before = torch.get_rng_state()
    first = load(source, 8).pixels
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(load(source, 8).pixels, first)  # threads do not mix up its draws
    assert pickle.dumps(source.photos[3])
    assert copy.copy(source.photos[3]).read() == source.photos[3].read()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("MNISTT,root=x", "no data set 'MNISTT'. Did you mean 'MNIST'"),
        ("MNIST", "needs the folder of its files; write torchvision:MNIST,root=FOLDER"),
        ("MNIST,root=x", "cannot be opened .*not found"),
        ("MNIST,root=x,colour=red", "takes no option 'colour'; it takes: root, train"),
        ("", "no data set ''"),
    ],
)
def test_torchvision_sets_asked_for_in_wrong_words(tmp_path: Path, words: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_source(f"torchvision:{words}")


def test_a_set_without_one_class_an_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeData, "__getitem__", lambda self, index: (Image.new("RGB", (2, 2)), {"boxes": []}))
    with pytest.raises(InputError, match="does not have one class an image"):
        open_source("torchvision:FakeData,size=2")


# Loading


def photos(contents: Sequence[bytes]) -> tuple[Photo, ...]:
    return tuple(Photo(f"{i}.png", partial(bytes, content)) for i, content in enumerate(contents))


def test_broken_images_are_skipped_in_order_and_recorded() -> None:
    contents = [b"" if i % 7 == 3 else picture(i % 256) for i in range(2100)]  # more than is handed out at a time
    seen: list[int] = []
    source = Source(("even", "odd"), photos(contents), tuple(i % 2 for i in range(2100)))
    loaded = load(source, 2, progress=seen.append)
    good = [i for i in range(2100) if i % 7 != 3]
    assert loaded.names == tuple(f"{i}.png" for i in good)
    assert loaded.pixels.dtype == torch.uint8
    assert loaded.pixels[:, 1, 1, 1].tolist() == [i % 256 for i in good]
    assert loaded.labels.dtype == torch.int64
    assert loaded.labels.tolist() == [i % 2 for i in good]
    assert len(loaded.skipped) == 300
    assert "'3.png'" in loaded.skipped[0]
    assert "'10.png'" in loaded.skipped[1]
    assert seen == list(range(1, 2101))


def test_strict_raises_the_first() -> None:
    source = Source((), photos([picture(0), b"", b"no image"]), ())
    with pytest.raises(BadImage, match=r"'1\.png'"):
        load(source, 2, strict=True)


def test_a_class_left_empty_is_named() -> None:
    source = Source(("rose", "tulip"), photos([picture(0), b"", b""]), (0, 1, 1))
    with pytest.raises(InputError, match="class 'tulip' has no image left: none of its 2"):
        load(source, 2)


def test_nothing_left_at_all() -> None:
    with pytest.raises(InputError, match=r"none of the 2 images can be used, '0\.png' first"):
        load(Source((), photos([b"", b""]), ()), 2)


def test_the_only_image_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"'0\.png' cannot be used: it is empty"):
        load(Source((), photos([b""]), ()), 2)


def test_a_file_that_vanished_is_skipped(tmp_path: Path) -> None:
    source = open_files([folder(tmp_path, {"a.png": picture(1), "b.png": picture(2)})])
    (tmp_path / "a.png").unlink()
    loaded = load(source, 2)
    assert loaded.names == (str(tmp_path / "b.png"),)
    assert "a.png' cannot be read: No such file" in loaded.skipped[0]


# Real data


def test_real_folder(data: Path) -> None:
    source = open_source(data / "flowers" / "test")
    assert len(source.classes) == 10
    assert list(source.classes) == sorted(path.name for path in (data / "flowers" / "test").iterdir())
    loaded = load(source, 32)
    assert not loaded.skipped
    assert set(loaded.labels.tolist()) == set(range(10))
    for name, label in zip(loaded.names, loaded.labels.tolist(), strict=True):
        assert name.startswith(source.classes[label] + "/")


def test_real_tables(data: Path) -> None:
    source = open_source(data / "cifar10" / "test.parquet")
    assert source.classes[:3] == ("airplane", "automobile", "bird")
    assert [source.labels.count(label) for label in range(10)] == [200] * 10
    loaded = load(source, 32)
    rows = pq.read_table(data / "cifar10" / "test.parquet")
    for i in (0, 999, 1000, 1999):  # on both sides of the border between row groups
        image = Image.open(io.BytesIO(rows["image"][i].as_py()["bytes"])).convert("RGB")
        assert np.array_equal(loaded.pixels[i].permute(1, 2, 0).numpy(), np.asarray(image))
        assert int(loaded.labels[i]) == rows["label"][i].as_py()
    probe = open_source(data / "imagenet_probe" / "test.parquet")
    assert len(probe.classes) == len(probe.photos) == 1000
    assert probe.classes[1] == "goldfish, Carassius auratus"
    assert (load(Source((), probe.photos[:20], ()), 32).pixels.float().std(dim=(1, 2, 3)) > 5).all()
