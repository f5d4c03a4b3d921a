import math

import pytest
import torch
from fixtures.tasks import fit, no_questions
from torch import nn
from torch.nn import functional

from optnas.data import TensorData
from optnas.tasks import LanguageModeling

torch.manual_seed(0)
TOKENS = torch.randint(1, 11, (30, 9))


class Bigram(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 11)

    def forward(self, input_ids, attention_mask=None):
        return {"logits": self.table(input_ids), "mask": attention_mask}


def expected(model, tokens, counted=None):
    scores, y = model.table(tokens[:, :-1]), tokens[:, 1:]
    counted = torch.ones_like(y).bool() if counted is None else counted[:, 1:].bool()
    return functional.cross_entropy(scores[counted], y[counted]).item()


def test_all_forms_of_batches_ask_for_the_next_token():
    model = Bigram()
    step = LanguageModeling(11)(model, no_questions()).training_step
    mask = torch.ones_like(TOKENS)
    mask[:, 6:] = 0
    whole, part = expected(model, TOKENS), expected(model, TOKENS, mask)
    assert whole != part
    assert step(TOKENS, 0).item() == pytest.approx(whole, rel=1e-5)
    assert step((TOKENS,), 0).item() == pytest.approx(whole, rel=1e-5)
    assert step((TOKENS[:, :-1], TOKENS[:, 1:]), 0).item() == pytest.approx(whole, rel=1e-5)
    assert step({"input_ids": TOKENS}, 0).item() == pytest.approx(whole, rel=1e-5)
    assert step({"input_ids": TOKENS, "labels": TOKENS}, 0).item() == pytest.approx(whole, rel=1e-5)
    assert step({"input_ids": TOKENS, "attention_mask": mask}, 0).item() == pytest.approx(part, rel=1e-5)
    padded = torch.where(mask.bool(), TOKENS, 0)
    step = LanguageModeling(11, padding=0)(model, no_questions()).training_step
    assert step(padded, 0).item() == pytest.approx(part, rel=1e-5)


def test_perplexity_and_bits_per_byte_follow_from_the_loss_of_the_split():
    model = Bigram()
    split = (TOKENS[:, :-1], TOKENS[:, 1:])
    data = TensorData(split, val=split, test=split, batch_size=7)
    metrics = fit(LanguageModeling(11, bytes_per_token=4.0)(model, no_questions()), data)
    loss = expected(model, TOKENS)
    assert metrics["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["val_ppl"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert metrics["test_bpb"] == pytest.approx(loss / math.log(2) / 4, rel=1e-5)
