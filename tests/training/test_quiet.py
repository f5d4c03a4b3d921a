import logging
import signal
import warnings

import pytest
import pytorch_lightning as pl
from pytorch_lightning.utilities import CombinedLoader
from pytorch_lightning.utilities.exceptions import SIGTERMException

from optnas.training.quiet import interruptible


def test_a_search_is_quiet_unless_asked(tmp_path, capfd, caplog, training, search):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(training(tmp_path))
    assert capfd.readouterr().out == ""
    assert not [record for record in caplog.records if "lightning" in record.name]
    filters = list(warnings.filters)
    search(training(tmp_path, enable_progress_bar=True))
    assert "Epoch 2" in capfd.readouterr().out
    assert list(warnings.filters) == filters
    assert logging.getLogger("pytorch_lightning").level != logging.ERROR


def test_signal_handlers_are_as_before(tmp_path, training, search):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    search(training(tmp_path))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("raised", "expected", "code"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (SIGTERMException(), SystemExit, 143),
        (SystemExit(7), SystemExit, 7),
        (ValueError("bug"), ValueError, None),
    ],
)
def test_interruptions_leave_a_fit_as_what_they_are(tmp_path, training, search, raised, expected, code):
    class Raising(pl.Callback):
        def on_train_batch_end(self, *args):
            raise raised

    with pytest.raises(expected) as caught:
        search(training(tmp_path, callbacks=lambda trial: [Raising()]))
    assert getattr(caught.value, "code", None) == code


@pytest.mark.parametrize(
    ("raised", "expected", "code"),
    [(KeyboardInterrupt(), KeyboardInterrupt, None), (SystemExit(143), SystemExit, 143)],
)
def test_an_interruption_after_which_lightning_cannot_clean_up_is_no_error(
    tmp_path, monkeypatch, training, search, raised, expected, code
):
    def interrupted(loader):
        raise raised

    monkeypatch.setattr(CombinedLoader, "__iter__", interrupted)
    with pytest.raises(expected) as caught:
        search(training(tmp_path))
    assert getattr(caught.value, "code", None) == code


def test_a_signal_that_lightning_leaves_ignored_is_not():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("before", [KeyboardInterrupt, SystemExit])
def test_an_error_of_a_search_that_begins_where_another_was_interrupted_is_its_own(before):
    def search_again():
        try:
            raise before
        except before:
            with interruptible():
                int("bug")

    with pytest.raises(ValueError, match="bug"):
        search_again()
