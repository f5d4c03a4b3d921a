import numpy as np
import pytest
import torch

from optnas.data import ImageFolder

Image = pytest.importorskip("PIL.Image")


def write(folder, color, n=6):
    folder.mkdir(parents=True)
    for i in range(n):
        pixels = np.full((9 + i, 7, 3), 0, np.uint8)
        pixels[..., color] = 255
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("no image")


def test_folders_are_classes(tmp_path):
    write(tmp_path / "red", 0)
    write(tmp_path / "blue", 2)
    data = ImageFolder(tmp_path, size=8, batch_size=4)
    assert data.classes == ["blue", "red"]
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (4, 3, 8, 8)
    assert torch.equal(x[:, 0, 0, 0] == 1, y == 1)
    assert len(data.train[1]) + len(data.val[1]) + len(data.test[1]) == 12


def test_parts_that_are_there_are_taken(tmp_path):
    for part, n in (("train", 6), ("test", 3)):
        write(tmp_path / part / "red", 0, n)
        write(tmp_path / part / "blue", 2, n)
    data = ImageFolder(tmp_path, size=4, val=0.25)
    assert [len(split[1]) for split in (data.train, data.val, data.test)] == [9, 3, 6]
    write(tmp_path / "test" / "green", 1)
    with pytest.raises(ValueError, match="has the class 'green'"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("name", ["valid", "Validation", "dev"])
def test_parts_for_validation_have_several_names(tmp_path, name):
    for part, n in (("train", 6), (name, 4), ("more", 2)):
        write(tmp_path / part / "red", 0, n)
        write(tmp_path / part / "blue", 2, n)
    with pytest.warns(UserWarning, match=r"more is not read.*Name the parts train, val and test"):
        data = ImageFolder(tmp_path, size=4)
    assert len(data.val[1]) == 8


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path / "train", 0)
    write(tmp_path / "bus", 2)
    assert ImageFolder(tmp_path, size=4).classes == ["bus", "train"]


def test_hidden_files_and_folders_are_no_data(tmp_path):
    write(tmp_path / "red", 0)
    write(tmp_path / "blue", 2)
    for name in (".ipynb_checkpoints", "__MACOSX"):
        write(tmp_path / name, 1)
    (tmp_path / "red" / "._0.png").write_bytes(b"of a Mac")
    data = ImageFolder(tmp_path, size=4)
    assert data.classes == ["blue", "red"]
    assert sum(len(split[1]) for split in (data.train, data.val, data.test)) == 12


def test_16_bits_are_not_cut_to_8(tmp_path):
    for name, gray in (("dark", 10_000), ("light", 40_000)):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.fromarray(np.full((5, 5), gray, np.uint16)).save(tmp_path / name / f"{i}.png")
    data = ImageFolder(tmp_path, size=4)
    assert data.train[0].unique().tolist() == pytest.approx([10_000 / 65535, 40_000 / 65535])
    Image.fromarray(np.zeros((5, 5), np.float32)).save(tmp_path / "dark" / "other.tif")
    with pytest.raises(ValueError, match=r"other.tif is of the mode 'F'"):
        ImageFolder(tmp_path, size=4)


def test_a_folder_without_images_is_said(tmp_path):
    (tmp_path / "red").mkdir()
    with pytest.raises(ValueError, match="There are no images below"):
        ImageFolder(tmp_path)
    write(tmp_path / "blue", 2)
    with pytest.raises(ValueError, match="red is a class without images"):
        ImageFolder(tmp_path)
