"""Search a transformer encoder for questions: TREC's six kinds, or sentences made from patterns.

    optnas run studies/trec_text.py

What is asked for: an abbreviation, a thing, a description, a person, a place, a number? With TREC in
`../shared/data` beside the repository that is the data; otherwise questions made from patterns stand in.
Words that the training part does not have are one token. The space is that of BERT, small; the baseline
averages the vectors of the words.
"""

import gzip
import random
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from optnas import Classification, Objective, TensorData, Training, Trial
from optnas.hub import bert
from optnas.space.blocks import Pool

FOLDER = Path(__file__).parents[2] / "shared" / "data"
N_TRAIN, LENGTH, PADDING, UNKNOWN = 2000, 20, 0, 1
PATTERNS = {
    "ABBR": ["What does {} stand for ?", "What is the abbreviation of {} ?"],
    "DESC": ["Why do {} sleep ?", "What is a {} ?", "How does a {} work ?"],
    "ENTY": ["What animal eats {} ?", "Which color has a {} ?", "Name a food with {} ."],
    "HUM": ["Who invented the {} ?", "Which president liked {} ?", "Who was {} ?"],
    "LOC": ["Where is the {} ?", "What country makes {} ?", "In which city is {} ?"],
    "NUM": ["How many {} are there ?", "When was the {} built ?", "How old is {} ?"],
}


def questions(part: str, n: int) -> list[tuple[str, str]]:
    """Label and text of each."""
    file = FOLDER / f"trec6.{part}.tsv.gz"
    if file.exists():
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            pairs = [line.rstrip("\n").partition("\t") for line in lines]
        return [(label, text) for label, _, text in pairs][:n]
    rng = random.Random(part)
    made = []
    for _ in range(n):
        label = rng.choice(sorted(PATTERNS))
        text = rng.choice(PATTERNS[label]).format(f"thing{rng.randrange(300)}")
        made.append((label if rng.random() < 0.9 else rng.choice(sorted(PATTERNS)), text))
    return made


train, test = questions("train", N_TRAIN), questions("test", 500)
KINDS = sorted({label for label, _ in train})
WORDS = {word: 2 + i for i, word in enumerate(sorted({w for _, text in train for w in text.lower().split()}))}


def encode(pairs: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Token numbers `(n, LENGTH)`, cut or padded, and classes."""
    rows = [[WORDS.get(word, UNKNOWN) for word in text.lower().split()][:LENGTH] for _, text in pairs]
    tokens = torch.tensor([row + [PADDING] * (LENGTH - len(row)) for row in rows])
    return tokens, torch.tensor([KINDS.index(label) for label, _ in pairs])


space = partial(
    bert.network,
    vocabulary=len(WORDS) + 2,
    length=LENGTH,
    head_width=(8, 16),
    heads=(1, 2, 4),
    depth=(1, 2, 3),
    expansion=(1.0, 2.0, 4.0),
    classes=len(KINDS),
    padding=PADDING,
    dropout=0.2,
)


class Average(nn.Module):
    """The mean of the words' vectors, and a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS) + 2, width, padding_idx=PADDING)
        self.pool = Pool("mean")
        self.classifier = nn.Linear(width, len(KINDS))

    def forward(self, tokens: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.pool(self.words(tokens), tokens != PADDING))
        return scores


def baseline(trial: Trial) -> nn.Module:
    """A bag of words, 64 numbers for each, as fastText has it (arXiv:1607.01759)."""
    return Average(64)


data = TensorData(encode(train), val=0.25, test=encode(test), batch_size=32)
estimator = Training(
    Classification(n_classes=len(KINDS), lr=3e-3), data, monitor="val_loss", mode="min", max_epochs=10
)
objective = Objective(space, estimator)

study_name = "trec_text"
storage = "sqlite:///trec.db"
n_trials = 20
n_retrain = 5
