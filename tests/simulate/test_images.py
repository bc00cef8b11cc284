"""Images: official CIFAR layouts, folders of images, and what is refused, in one line."""

import json
import pickle
import tarfile

import numpy as np
import pytest

from theory.setting.errors import InputError

Image = pytest.importorskip("PIL.Image")

from simulate.networks.folders import Shaping, read_folder, shaped  # noqa: E402
from simulate.networks.images import LAYOUTS, read_cifar  # noqa: E402
from tests.support.photos import write_photos  # noqa: E402


def _records(rng, label_bytes, classes, n=20):
    records = rng.integers(0, 255, (n, label_bytes + 3072), np.uint8)
    records[:, label_bytes - 1] = rng.integers(0, classes, n)
    return records


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.folder)
def test_every_official_layout_from_folder_and_archive(layout, tmp_path, seed):
    """The binary and the Python version of the same images are the same; classes are named where the names are there."""
    rng = np.random.default_rng(seed)
    folder = tmp_path / "data" / layout.folder
    folder.mkdir(parents=True)
    records = _records(rng, layout.label_bytes or layout.classes // 10 // 5 or 1, layout.classes)
    first = records.shape[1] - 3072
    key = "labels" if layout.classes == 10 else "fine_labels"
    names = [f"name{k}" for k in range(layout.classes)]
    for name in layout.files["test"]:
        content = {b"data": records[:, first:], key.encode(): records[:, first - 1].tolist(), b"filenames": [b"x"]}
        blob = records.tobytes() if layout.label_bytes else pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(blob)
    if layout.names:
        text = "\n".join(names).encode()
        meta = pickle.dumps({b"fine_label_names": [name.encode() for name in names]}, protocol=2)
        (folder / layout.names).write_bytes(text if layout.label_bytes else meta)
    archive = tmp_path / layout.archive
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, layout.folder)
    for place in (folder, folder.parent, archive, tmp_path):
        images = read_cifar(place)
        np.testing.assert_array_equal(images.labels, records[:, first - 1])
        np.testing.assert_array_equal(images.pixels[3, 1], records[3, first + 1024 : first + 2048].reshape(32, 32))
        assert images.class_names[:1] == (("name0",) if layout.names else ("airplane",))
        assert images.source["data"] == layout.data


class Bomb:
    def __reduce__(self):
        return print, ("this pickle ran code",)


def test_python_files_that_cannot_serve(tmp_path, capsys):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    contents = (
        (Bomb(), "it would run"),
        ({b"data": np.zeros((3, 3072), np.uint8)}, "missing labels"),
        ({b"data": np.zeros((3, 3071), np.uint8), b"labels": [0, 1, 2]}, r"uint8 \(3, 3072\)"),
        ({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 10, 2]}, "got 10 in record 1"),
        ([1], "dictionary"),
    )
    for content, message in contents:
        (folder / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(InputError, match=message):
            read_cifar(tmp_path)
    (folder / "test_batch").write_bytes(b"\x80\x02}q")
    with pytest.raises(InputError, match="pickle of arrays"):
        read_cifar(tmp_path)
    assert "ran code" not in capsys.readouterr().out


@pytest.fixture
def photos(tmp_path, seed):
    return write_photos(tmp_path, seed)


def test_folders_of_images(photos):
    plain = read_folder(photos, shaping=Shaping(crop=32))
    assert plain.class_names == ("n001", "n002")
    np.testing.assert_array_equal(plain.labels, [0, 0, 0, 1, 1, 1])
    assert plain.pixels[2:4].shape == (2, 3, 32, 32)
    index = photos / "index.json"
    index.write_text(json.dumps({"0": ["n002", "second"], "1": ["n001", "first"]}))
    named = read_folder(photos, class_index=index, shaping=Shaping(crop=32), limit=4)
    assert named.class_names == ("second", "first")
    np.testing.assert_array_equal(named.labels, [1, 1, 1, 0])
    (photos / "index.txt").write_text("n002 second one\nn001 first\n")
    assert read_folder(photos, class_index=photos / "index.txt").class_names == ("second one", "first")
    (photos / "labels.tsv").write_text("file\tindex\tname\nn002_1.png\t7\tx\nn001_0.png\t3\ty\n")
    listed = read_folder(photos, labels=photos / "labels.tsv", shaping=Shaping(crop=32))
    np.testing.assert_array_equal(listed.labels, [7, 3])
    np.testing.assert_array_equal(listed.pixels[0:1], read_folder(photos, shaping=Shaping(crop=32)).pixels[4:5])
    (photos / "labels.txt").write_text("n002_1.png n002\nn001_0.png n001\n")
    by_name = read_folder(photos, labels=photos / "labels.txt", class_index=index)
    np.testing.assert_array_equal(by_name.labels, [0, 1])


def test_resizing_and_cropping(photos):
    """The short side as asked, the long one in proportion, the middle kept."""
    path = photos / "val" / "n001" / "n001_0.png"  # 51 x 40
    with Image.open(path) as image:
        wanted = np.asarray(image.resize((25, 20), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(shaped(path, Shaping(20, None, "bicubic")), wanted.transpose(2, 0, 1))
    np.testing.assert_array_equal(shaped(path, Shaping(20, 20, "bicubic")), wanted[:, 2:22].transpose(2, 0, 1))


def test_folders_that_cannot_serve(photos, tmp_path):
    with pytest.raises(InputError, match="give --crop"):
        _ = read_folder(photos).pixels[0:3]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image in it"):
        read_folder(tmp_path / "empty")
    (tmp_path / "empty" / "one").mkdir()
    with pytest.raises(InputError, match="found none"):
        read_folder(tmp_path / "empty")
    with pytest.raises(InputError, match="give --labels"):
        read_folder(photos / "val" / "n001")
    with pytest.raises(InputError, match="folder train in it for --split train"):
        read_folder(photos, split="train")
    with pytest.raises(InputError, match="folder of images"):
        read_folder(photos / "nowhere")
    (photos / "index.txt").write_text("n001 first\n")
    with pytest.raises(InputError, match="'n002'"):
        read_folder(photos, class_index=photos / "index.txt")
    for text, message in (
        ("n001_0.png\n", "its label"),
        ("n001_0.png x\n", "class number"),
        ("n001_0.png 0\nnone.png 1\n", "found none"),
        ("none.png 1\nn001_0.png 0\n", "found none"),
        ("n001_0.png 0\nn001_0.png 1\n", "once"),
        ("\n", "got none"),
    ):
        (photos / "labels.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            read_folder(photos, labels=photos / "labels.txt")
    path = photos / "val" / "n001" / "n001_0.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"n001_0\.png.*cannot read it"):
        _ = read_folder(photos, shaping=Shaping(crop=32)).pixels[0:2]
    path.unlink()
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(photos / "val" / "n001" / "n001_1.tif")
    with pytest.raises(InputError, match="8-bit"):
        _ = read_folder(photos, shaping=Shaping(crop=32)).pixels[0:9]
