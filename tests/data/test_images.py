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


def test_a_folder_without_images_is_said(tmp_path):
    (tmp_path / "red").mkdir()
    with pytest.raises(ValueError, match="There are no images below"):
        ImageFolder(tmp_path)
