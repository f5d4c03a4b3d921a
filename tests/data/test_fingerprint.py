import pytorch_lightning as pl
import torch
from torch.utils.data import Subset, TensorDataset

from optnas.data import TensorData, data_fingerprint


def test_fingerprint_sees_every_change():
    def part(value=1.0, n=4, dtype=torch.float32):
        return torch.full((n,), value, dtype=dtype), torch.zeros(n)

    variants = [(part(), part(), part()), (part(2.0), part(), part()), (part(), part(), part(n=5)),
                (part(dtype=torch.float16), part(), part()), (part(), part(2.0), part())]  # fmt: skip
    prints = [data_fingerprint(TensorData(*variant)) for variant in variants]
    assert len(set(prints)) == len(prints)


def test_data_that_does_not_say_what_it_contains_is_looked_into():
    x = torch.arange(10.0)

    def folds(rows):
        return pl.LightningDataModule.from_datasets(Subset(TensorDataset(x), rows))

    assert data_fingerprint(folds([1, 2])) == data_fingerprint(folds([1, 2]))
    assert data_fingerprint(folds([1, 2])) != data_fingerprint(folds([1, 3]))


def test_a_function_that_makes_data_is_told_apart_by_what_it_refers_to():
    def maker(x):
        return lambda trial: TensorData((x, x))

    ones, others = torch.ones(10), torch.ones(10)
    assert data_fingerprint(maker(ones)) == data_fingerprint(maker(others))
    others[3] = 2
    assert data_fingerprint(maker(ones)) != data_fingerprint(maker(others))
