"""Search a transformer that classifies texts.

    optnas check NAME.py    # what would go wrong, and how long the search takes
    optnas run NAME.py      # search; the same command goes on where it stopped
    optnas best NAME.py --retrain 3

It runs as it stands, on opinions that it makes from a few words. For texts of your own, change the three
lines that are marked 1, 2 and 3.
"""

import random
from functools import partial

import torch

from optnas import Classification, Objective, TensorData, Training
from optnas.hub import bert


def made_up(n: int) -> tuple[list[str], list[str]]:
    """Opinions on films, and whether they are for or against; "not" turns them round."""
    choose = random.Random(0).choice
    words = {"for": ["good", "funny", "wise"], "against": ["bad", "dull", "silly"]}
    opposite = {"for": "against", "against": "for"}
    texts, labels = [], []
    for _ in range(n):
        label, negated = choose(["for", "against"]), choose([True, False])
        said = choose(words[opposite[label] if negated else label])
        subject = f"{choose(['the', 'this', 'that'])} {choose(['film', 'plot', 'cast', 'end'])}"
        texts.append(f"{subject} is {'not ' if negated else ''}{choose(['very ', 'so ', ''])}{said}")
        labels.append(label)
    return texts, labels


texts, labels = made_up(600)  # 1: your texts, and the label of each
LENGTH = 12  # 2: the words of a text that are read; what is longer is cut
MIN_COUNT = 2  # 3: words that are rarer than this are all read as one unknown word
# For a CSV file with the columns text and label, put these lines here, and `import csv` at the top:
# rows = list(csv.DictReader(open("texts.csv", newline="", encoding="utf-8")))
# texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]

# Words become numbers: 0 fills up short texts, 1 stands for every rare word.
counts: dict[str, int] = {}
for text in texts:
    for word in text.lower().split():
        counts[word] = counts.get(word, 0) + 1
frequent = sorted(word for word, count in counts.items() if count >= MIN_COUNT)
number = {word: i for i, word in enumerate(frequent, start=2)}
numbers = [[number.get(word, 1) for word in text.lower().split()][:LENGTH] for text in texts]
kinds = sorted(set(labels))
x = torch.tensor([row + [0] * (LENGTH - len(row)) for row in numbers])
y = torch.tensor([kinds.index(label) for label in labels])

# A fifth of the texts is held out to compare networks on, a fifth for the test of the winner.
data = TensorData((x, y), val=0.2, test=0.2, batch_size=32)

# What can be built: the networks of BERT (Devlin et al., 2019), here kept small and untrained. A space is a
# function of a trial that returns a module; `optnas new module` shows one that is written by hand.
space = partial(
    bert.network,
    vocabulary=len(number) + 2,
    length=LENGTH,
    head_width=(8, 16),
    heads=(1, 2, 4),
    depth=(1, 2, 3),
    expansion=(1.0, 2.0, 4.0),
    classes=len(kinds),
)

# How a network is scored: by its smallest validation loss in eight epochs.
training = Training(
    Classification(n_classes=len(kinds), lr=3e-3), data, monitor="val_loss", mode="min", max_epochs=8
)
objective = Objective(space, training)
n_trials = 20
