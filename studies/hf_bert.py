"""Search the sizes of a BERT of Hugging Face, from random weights: is a sentence about a film kind?

    optnas run studies/hf_bert.py

Needs `pip install 'optnas[hf]'`; nothing is downloaded. With SST-2 in `../shared/data` beside the repository
that is the data, 2,000 of its sentences to train and validate on; otherwise sentences made from patterns
stand in, some of them with a "not". Words become numbers by a tokenizer that is trained on the training part.
The baseline has the sizes of BERT-Tiny (Turc et al., arXiv:1908.08962).
"""

import gzip
import random
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from optnas import Classification, Objective, Training, Trial
from optnas.data import ColumnData

FOLDER = Path(__file__).parents[2] / "shared" / "data"
N_TRAIN, N_TEST, LENGTH, VOCABULARY = 2000, 800, 24, 3000
KIND, UNKIND = (
    ("brilliant", "moving", "funny", "warm", "clever"),
    ("dull", "cold", "silly", "flat", "tedious"),
)


def sentences(part: str, n: int) -> list[tuple[str, str]]:
    """Label and text of each."""
    file = FOLDER / f"sst2.{part}.tsv.gz"
    if file.exists():
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            pairs = [line.rstrip("\n").partition("\t") for line in lines]
        rows = [(label, text) for label, _, text in pairs]
        random.Random(0).shuffle(rows)
        return rows[:n]
    rng = random.Random(part)
    made = []
    for _ in range(n):
        kind, not_so = rng.random() < 0.5, rng.random() < 0.3
        word = rng.choice(KIND if kind != not_so else UNKIND)
        film = f"film{rng.randrange(300)}"
        made.append((str(int(kind)), f"the story of {film} is {'not ' if not_so else ''}{word} ."))
    return made


train, test = sentences("train", N_TRAIN), sentences("test", N_TEST)
tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
tokenizer.normalizer = normalizers.Lowercase()
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.train_from_iterator(
    [text for _, text in train],
    trainers.WordLevelTrainer(vocab_size=VOCABULARY, special_tokens=["[PAD]", "[UNK]"]),
)
tokenizer.enable_truncation(LENGTH)
tokenizer.enable_padding(length=LENGTH)


def columns(rows: list[tuple[str, str]]) -> dict[str, list]:
    """As a model of Hugging Face takes them."""
    encoded = tokenizer.encode_batch([text for _, text in rows])
    return {
        "input_ids": [row.ids for row in encoded],
        "attention_mask": [row.attention_mask for row in encoded],
        "label": [int(label) for label, _ in rows],
    }


def bert(width: int, heads: int, layers: int, hidden: int, dropout: float) -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=LENGTH,
            num_labels=2,
            hidden_size=width,
            num_attention_heads=heads,
            num_hidden_layers=layers,
            intermediate_size=hidden,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    )


def space(trial: Trial) -> nn.Module:
    width = trial.suggest_categorical("width", [32, 64, 128])
    return bert(
        width,
        trial.suggest_categorical("heads", [1, 2, 4]),
        trial.suggest_int("layers", 1, 3),
        trial.suggest_categorical("expansion", [1, 2, 4]) * width,
        trial.suggest_categorical("dropout", [0.1, 0.3, 0.5]),
    )


def baseline(trial: Trial) -> nn.Module:
    """BERT-Tiny: two layers of 128."""
    return bert(width=128, heads=2, layers=2, hidden=512, dropout=0.1)


data = ColumnData(
    {"train": columns(train), "test": columns(test)},
    inputs=("input_ids", "attention_mask"),
    target="label",
    val=0.25,
    batch_size=32,
)
estimator = Training(Classification(n_classes=2, lr=1e-3), data, monitor="val_loss", mode="min", max_epochs=6)
objective = Objective(space, estimator)

study_name = "hf_bert"
storage = "sqlite:///bert.db"
n_trials = 20
n_retrain = 5
