import collections

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import move_data_to_device

from optnas.data import TensorData
from optnas.training.quiet import quiet


def rows(split):
    return set(split[0].flatten(1)[:, 0].long().tolist())


def numbered(n, **options):
    x = torch.arange(n).float().unsqueeze(1)
    return TensorData((x, torch.arange(n) % 3), **options)


def test_every_sample_is_in_exactly_one_split():
    data = numbered(100, val=0.2, test=0.3)
    parts = [rows(data.train), rows(data.val), rows(data.test)]
    assert [len(part) for part in parts] == [50, 20, 30]
    assert set.union(*parts) == set(range(100))


def test_splits_of_labels_are_stratified_and_depend_on_the_seed_alone():
    y = torch.tensor([0] * 80 + [1] * 20)
    one, same, other = (TensorData((torch.arange(100.0), y), seed=seed) for seed in (1, 1, 2))
    for split in (one.train, one.val, one.test):
        assert split[1].float().mean() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(one.val[0], same.val[0])
    assert not torch.equal(one.val[0], other.val[0])


def test_what_cannot_be_stratified_is_split_at_random():
    regression = TensorData((np.arange(50.0), np.linspace(0, 1, 50)))
    with pytest.warns(UserWarning, match="All 10 rows of the (val|test) data have the target 1"):
        lonely = TensorData((np.arange(50.0), [1] * 49 + [0]))
    assert len(regression.val[1]) == len(lonely.val[1]) == 10


def test_given_splits_stay_as_they_are():
    part = (np.ones((4, 2)), np.zeros(4, dtype=np.int64))
    data = TensorData(part, val=part, test=part)
    assert data.train[0].dtype == torch.float32
    assert [len(split[1]) for split in (data.train, data.val, data.test)] == [4, 4, 4]


def test_an_epoch_serves_every_sample_once_in_an_order_of_its_own():
    loader = numbered(100, val=0.2, test=0.2, batch_size=16).train_dataloader()
    epochs = [torch.cat([x for x, _ in loader]) for _ in range(2)]
    assert len(loader) == 4
    assert not torch.equal(*epochs)
    assert torch.equal(epochs[0].sort(0).values, epochs[1].sort(0).values)
    loader.batch_sampler.sampler.set_epoch(0)
    assert torch.equal(torch.cat([x for x, _ in loader]), epochs[0])


def test_no_training_batch_is_a_single_sample():
    x = torch.arange(33.0)[:, None]
    data = TensorData((x, x), val=(x, x), test=(x, x), batch_size=16)
    batches = [len(y) for _, y in data.train_dataloader()]
    assert batches == [16, 17]
    assert len(data.train_dataloader()) == 2
    assert [len(y) for _, y in data.val_dataloader()] == [16, 16, 1]
    alone = TensorData((x, x), val=(x, x), test=(x, x), batch_size=1)
    assert [len(y) for _, y in alone.train_dataloader()] == [1] * 33
    assert sorted(v for part, _ in data.train_dataloader() for v in part.flatten().tolist()) == list(
        range(33)
    )


def test_inputs_stay_with_their_targets():
    for x, y in numbered(90, batch_size=7).train_dataloader():
        assert torch.equal(x[:, 0].long() % 3, y)


def test_the_order_is_a_function_of_torchs_seed_not_of_its_state():
    data = numbered(60, batch_size=60)

    def first(seed, draws):
        torch.manual_seed(seed)
        torch.rand(draws)
        return next(iter(data.train_dataloader()))[0]

    assert torch.equal(first(0, draws=0), first(0, draws=5))
    assert not torch.equal(first(0, draws=0), first(1, draws=0))


def test_several_inputs_are_indexed_together():
    x = {"left": torch.arange(30), "right": (torch.arange(30), torch.arange(30) * 2)}
    data = TensorData((x, torch.arange(30.0)), batch_size=4)
    for batch, y in data.train_dataloader():
        assert torch.equal(batch["left"], y.long())
        assert torch.equal(batch["right"][1], 2 * y.long())


def test_lightning_sets_the_epoch():
    class Record(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen = []

        def training_step(self, batch, batch_idx):
            self.seen.append(batch[0])
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = numbered(50, batch_size=50)
    module = Record()
    with quiet():
        trainer = pl.Trainer(
            max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, data.train_dataloader())
    by_hand = data.train_dataloader()
    expected = [x for _ in range(3) for x, _ in by_hand]
    assert all(torch.equal(*pair) for pair in zip(module.seen, expected, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": 1.5}, "val=1.5"),
        ({"test": 0.0}, "test=0.0"),
        ({"val": 0.6, "test": 0.6}, "leaves a split empty"),
        ({"batch_size": 0}, "batch_size"),
        ({"val": (torch.zeros(3), torch.zeros(2))}, "val holds inputs and targets of different lengths"),
    ],
)
def test_impossible_splits_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        numbered(10, **options)


@pytest.mark.parametrize("given", [(torch.zeros(9, 2), torch.zeros(9)), (torch.zeros(9, 2),)])
def test_inputs_and_targets_without_the_parentheses_of_a_pair_are_recognized(given):
    with pytest.raises(ValueError, match=r"TensorData\(\(x, y\)\)"):
        TensorData(*given)


def test_augmentation_touches_training_inputs_only_and_is_repeatable():
    def shift(x, generator):
        return x + torch.rand(x.shape, generator=generator)

    plain, augmented = numbered(50, batch_size=10), numbered(50, batch_size=10, augment=shift)
    x, y = next(iter(augmented.train_dataloader()))
    again, _ = next(iter(augmented.train_dataloader()))
    original, target = next(iter(plain.train_dataloader()))
    assert torch.equal(x, again)
    assert torch.equal(y, target)
    assert not torch.equal(x, original)
    assert torch.equal(next(iter(augmented.val_dataloader()))[0], next(iter(plain.val_dataloader()))[0])


def test_batches_move_to_a_device():
    batch = next(iter(numbered(10).val_dataloader()))
    assert all(part.device.type == "meta" for part in move_data_to_device(batch, torch.device("meta")))


@pytest.mark.parametrize("n", [2, 3, 200])
def test_targets_may_be_a_dict_or_a_tuple(n):
    x, y = torch.arange(n), {"a": torch.arange(n), "b": (torch.arange(n) * 2, torch.zeros(n))}
    data = TensorData((x, y), val=(x, y), test=(x, y), batch_size=64)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batches = list(loader)
        assert sum(len(part) for part, _ in batches) == n
        for part, targets in batches:
            assert torch.equal(targets["a"], part)
            assert torch.equal(targets["b"][0], 2 * part)


def test_a_share_of_data_with_several_targets_is_held_out():
    x = torch.arange(100.0)
    data = TensorData((x, (x.long(), {"b": x})), val=0.2, test=0.3)
    parts = [data.train, data.val, data.test]
    assert [len(split[0]) for split in parts] == [50, 20, 30]
    assert sorted(v for split in parts for v in split[1][1]["b"].tolist()) == x.tolist()


def test_named_tuples_stay_what_they_are():
    pair = collections.namedtuple("pair", "left right")
    x = pair(torch.arange(20), torch.arange(20))
    data = TensorData((x, torch.zeros(20)), batch_size=4)
    assert all(isinstance(part, pair) for part, _ in data.train_dataloader())


@pytest.mark.parametrize("x", [{}, (), torch.tensor(1.0)])
def test_inputs_without_rows_are_refused(x):
    with pytest.raises(ValueError, match="first dimension"):
        TensorData((x, torch.zeros(3)))


@pytest.mark.parametrize("part", ["inputs", "targets"])
def test_rows_with_what_is_no_number_are_told(part):
    x, y = torch.rand(20, 3), torch.rand(20)
    TensorData(({"a": x, "b": torch.arange(20)}, y))  # a warning would be an error
    (x if part == "inputs" else y)[[3, 4]] = torch.nan
    with pytest.warns(UserWarning, match=f"In 2 rows of the train data, such as row 3, {part} are infinite"):
        TensorData(({"a": x, "b": torch.arange(20)}, y), val=(x[5:], y[5:]), test=(x[5:], y[5:]))


def test_texts_are_refused():
    with pytest.raises(TypeError, match=r"array of <U1.* np.unique\(y, return_inverse=True\)"):
        TensorData((torch.rand(4, 2), np.array(list("abab"))))


def test_parts_of_which_one_has_whole_numbers_and_one_real_ones_are_refused():
    pixels, y = torch.randint(0, 256, (40, 3, 2, 2), dtype=torch.uint8), torch.arange(40) % 2
    shares = pixels.float() / 255
    with pytest.raises(ValueError, match=r"val holds inputs of torch.uint8, and train holds torch.float32"):
        TensorData((shares, y), val=(pixels, y))
    with pytest.raises(ValueError, match=r"test holds inputs of torch.float32, and train holds torch.uint8"):
        TensorData((pixels, y), test=(shares, y))
    given = TensorData(({"a": shares, "b": y}, y), val=({"b": y, "a": shares}, y))
    assert len(given.val[1]) == 40
    augmented = TensorData((pixels, y), augment=lambda x, generator: x.float() / 255)
    with pytest.raises(ValueError, match=r"augment returns inputs of torch.float32.*in the same way before"):
        next(iter(augmented.train_dataloader()))
    inverted = TensorData((pixels, y), augment=lambda x, generator: 255 - x)
    assert next(iter(inverted.train_dataloader()))[0].dtype == torch.uint8


def test_a_part_of_one_class_is_told_and_data_of_one_target_are_not():
    x, y = torch.arange(60.0), torch.arange(60) // 20  # sorted by class
    with pytest.warns(
        UserWarning, match=r"All 10 rows of the (val|test) data have the target 2.*=0.2 without"
    ):
        TensorData((x, y), val=1 / 6, test=1 / 6, ordered=True)
    with pytest.warns(UserWarning, match="All 20 rows of the test data have the target 1"):
        TensorData((x, y), test=(x[20:40], y[20:40]))
    with pytest.warns(UserWarning, match="the val data have the target"):
        grouped = TensorData((x, y), groups=y, val=0.3, test=(x, y))
    with pytest.warns(UserWarning, match="All 20 rows of the val data have the target"):
        grouped.fold(0, 3)
    TensorData((x, torch.zeros(60)))  # there is no target at all
    TensorData((x, y))
