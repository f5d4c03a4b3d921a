import collections

import numpy as np
import pytest
import torch

from optnas.data import TableData

N = 40
RNG = np.random.default_rng(0)
AREA = RNG.normal(100, 30, N)
FLOOR = np.arange(N) % 5
CITY = np.array(["Rome", "Oslo", "Bonn"])[np.arange(N) % 3]
PRICE = 1000 * AREA + 10 * FLOOR


def table(**changes):
    return {"area": AREA, "floor": FLOOR, "city": CITY, "price": PRICE, **changes}


def everything(loader):
    x, y = zip(*loader, strict=True)
    return x, torch.cat(y)


def test_columns_are_typed_and_scaled_by_the_training_rows():
    data = TableData(table(), "price", batch_size=100)
    assert (data.number_names, data.category_names, data.cardinalities) == (["area", "floor"], ["city"], [4])
    (x,), y = everything(data.train_dataloader())
    assert x["numbers"].mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert x["numbers"].std(0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-4)
    assert (y.mean().item(), y.std(correction=0).item()) == pytest.approx((0, 1), abs=1e-4)
    (held,), target = everything(data.val_dataloader())
    raw = data.train[0]["numbers"]
    expected = (data.val[0]["numbers"] - raw.mean(0)) / raw.std(0, correction=0)
    assert torch.allclose(held["numbers"], expected, atol=1e-5)
    mean, deviation = data.target_scale
    assert torch.allclose(target * deviation + mean, data.val[1], rtol=1e-4)


def test_each_fold_is_scaled_by_its_own_training_rows():
    folds = [TableData(table(), "price", batch_size=100).fold(i, 3) for i in range(3)]
    for fold in folds:
        (x,), _ = everything(fold.train_dataloader())
        assert x["numbers"].mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert len({fold.target_scale for fold in folds}) == 3


def test_what_is_missing_or_unknown():
    area = AREA.copy()
    area[::4] = np.nan
    city = np.where(np.arange(N) == N - 1, "Lima", CITY).astype(object)
    city[1] = None
    data = TableData(table(area=area, city=city), "price", ordered=True, batch_size=100)
    (x,), _ = everything(data.train_dataloader())
    assert torch.equal(x["numbers"][:, 0] == 0, data.train[0]["numbers"][:, 0].isnan()[order(data)])
    assert x["numbers"].isfinite().all()
    (last,), _ = everything(data.test_dataloader())
    assert last["categories"][-1].item() == 0  # Lima is in no training row
    assert (data.train[0]["categories"] == 0).sum() == 1
    assert data.cardinalities == [5]


def order(data):
    """The order in which an epoch serves the rows."""
    generator = torch.Generator()
    from optnas.data.tensors import _mix

    generator.manual_seed(_mix(_mix(data.seed, torch.initial_seed()), 0))
    return torch.randperm(len(data.train[1]), generator=generator)


@pytest.mark.parametrize(
    ("column", "classes"),
    [(CITY, ["Bonn", "Oslo", "Rome"]), (FLOOR, [0, 1, 2, 3, 4]), (FLOOR > 2, [False, True]), (AREA, [])],
)
def test_targets(column, classes):
    data = TableData({"x": AREA, "y": column}, "y")
    assert data.classes == classes
    assert data.train[1].dtype == (torch.int64 if classes else torch.float32)
    assert isinstance(data.train[0], torch.Tensor)


def test_a_csv_file(tmp_path):
    rows = [f"{a},{f},{c},{p}" for a, f, c, p in zip(AREA, FLOOR, CITY, PRICE, strict=True)]
    rows[3] = rows[3].replace(rows[3].split(",")[0], "", 1)
    (tmp_path / "houses.csv").write_text("\n".join(["area,floor,city,price", *rows]))
    data = TableData(tmp_path / "houses.csv", "price", ignore=("floor",))
    assert (data.number_names, data.category_names, data.classes) == (["area"], ["city"], [])
    of_dict = TableData(table(area=np.where(np.arange(N) == 3, np.nan, AREA)), "price", ignore=("floor",))
    assert torch.equal(data.val[1], of_dict.val[1])
    assert TableData(tmp_path / "houses.csv", "floor").classes == [0, 1, 2, 3, 4]


class Frame:
    """As pandas and polars have them."""

    def __init__(self, columns):
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return self._columns[name]


def test_frames_and_groups_by_name():
    data = TableData(Frame(table(house=np.arange(N) // 2)), "price", groups="house", categories=("floor",))
    assert data.number_names == ["area"]
    assert data.category_names == ["floor", "city"]
    houses = collections.Counter()
    for split in (data.train, data.val, data.test):
        houses.update(
            {int(np.flatnonzero(np.isclose(PRICE, price, rtol=1e-6))[0]) // 2 for price in split[1]}
        )
    assert max(houses.values()) == 1


def test_what_cannot_be_is_said(tmp_path):
    with pytest.raises(KeyError, match="no column 'cost'; its columns are 'area', 'floor'"):
        TableData(table(), "cost")
    with pytest.raises(ValueError, match=r"'price' is missing in 1 rows, such as row 2"):
        TableData(table(price=np.where(np.arange(N) == 2, np.nan, PRICE)), "price")
    with pytest.raises(ValueError, match="the table has only 'price'"):
        TableData({"price": PRICE}, "price")


def test_marks_for_missing_numbers_do_not_make_a_column_one_of_categories(tmp_path):
    marks = ["NA", "n/a", "?", "", "null", "NaN"]
    rows = [f"{marks[i] if i < 6 else i}, {'NA' if i % 2 else 'EU'}, {i % 3}" for i in range(N)]
    (tmp_path / "a.csv").write_text("\n".join(["size, region, kind", *rows]))
    data = TableData(tmp_path / "a.csv", "kind", ordered=True)
    assert (data.number_names, data.category_names, data.cardinalities) == (["size"], ["region"], [3])
    assert data.train[0]["numbers"][:, 0].isnan().nonzero().flatten().tolist() == list(range(6))


class NeitherNor:
    """Answers no question whether it is equal to something, as pandas.NA does."""

    def __ne__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize("gap", [None, float("nan"), NeitherNor()])
def test_numbers_in_columns_of_objects_are_numbers(gap):
    def objects(values):
        return np.array([gap, *values[1:]], dtype=object)

    kept = TableData(
        {"a": objects(list(range(N))), "b": objects([True, False] * 20), "kind": FLOOR.astype(object)}, "kind"
    )
    assert (kept.number_names, kept.category_names, kept.classes) == (["a", "b"], [], [0, 1, 2, 3, 4])


def test_times_that_are_missing_are_missing():
    days = np.array(["NaT", "2020-01-01", "2020-01-03", "2020-02-01"] * 10, "datetime64[D]")
    data = TableData({"day": days, "x": AREA, "price": PRICE}, "price", batch_size=100)
    (x,), _ = everything(data.train_dataloader())
    assert len(x[:, 0].unique()) == 4


def test_numbers_that_32_bits_would_take_for_equal_stay_apart():
    seconds = 1.7e9 + np.arange(N)
    data = TableData({"at": seconds, "price": seconds}, "price", batch_size=100)
    (x,), y = everything(data.train_dataloader())
    assert len(x.unique()) == len(y.unique()) == len(y)
    assert torch.allclose(x[:, 0], y)
    mean, deviation = data.target_scale
    (_,), held = everything(data.val_dataloader())
    assert set(np.round(held.double().numpy() * deviation + mean, 1)) <= set(seconds)


def test_what_only_rounding_changes_is_constant():
    constant = np.where(np.arange(40) < 24, 0.1, 0.2)  # in the training rows
    data = TableData({"a": constant, "y": np.arange(40.0)}, "y", ordered=True)
    (last,), _ = everything(data.test_dataloader())
    assert last[:, 0].abs().max() < 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "has no rows below a header"),
        (["a,y"], "has no rows below a header"),
        (["a,a,y", "1,2,3"], "has 2 columns named 'a'"),
        (["a,y", "1,2", "", "1,000,2"], "Line 4 of .* has 3 entries, and the header 2"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, lines, words):
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=words):
        TableData(tmp_path / "a.csv", "y")


@pytest.mark.parametrize("name", ["area", "price"])
def test_an_infinite_number_is_refused(name):
    infinite = np.where(np.arange(N) == 3, -np.inf, AREA)
    with pytest.raises(ValueError, match=f"'{name}' is -inf in row 3"):
        TableData(table(**{name: infinite}), "price")


@pytest.mark.parametrize("column", [["a"] * N, [1] * N, [0.5] * N])
def test_a_target_of_one_value_is_refused(column):
    with pytest.raises(ValueError, match="in every row, so there is nothing to learn"):
        TableData({"x": AREA, "y": column}, "y")


def test_rows_without_a_group_are_refused():
    with pytest.raises(ValueError, match="groups says of 1 rows, such as row 2, no group"):
        TableData(table(house=[1, 2, None, *range(N - 3)]), "price", groups="house")
