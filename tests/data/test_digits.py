import torch

from optnas.data import Digits, data_fingerprint


def test_digits():
    data = Digits()
    assert [len(split[1]) for split in (data.train, data.val, data.test)] == [1079, 359, 359]
    assert data.train[0].shape[1:] == (1, 8, 8)
    assert data.train[0].min() == 0
    assert data.train[0].max() == 1
    for split in (data.train, data.val, data.test):
        shares = torch.bincount(split[1]) / len(split[1])
        assert shares.min() > 0.09
        assert shares.max() < 0.11
    assert data_fingerprint(Digits(seed=3, batch_size=5)) == data_fingerprint(data)
