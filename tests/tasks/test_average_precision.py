"""The mean average precision beside its definition, read as plain sums, and beside pycocotools."""

import math
import random

import pytest
import torch

from optnas.tasks import MeanAveragePrecision


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def by_definition(found, wanted, thresholds):
    """Class by class and threshold by threshold: of all found boxes, the best first, which are right."""
    every = []
    for label in {label for image in wanted for _, label in image}:
        n = sum(kind == label for image in wanted for _, kind in image)
        for threshold in thresholds:
            taken, answers = set(), []
            rows = [
                (-s, i, j) for i, image in enumerate(found) for j, (_, k, s) in enumerate(image) if k == label
            ]
            for _, i, j in sorted(rows):
                box = found[i][j][0]
                near = [
                    (overlap(box, other), k)
                    for k, (other, kind) in enumerate(wanted[i])
                    if kind == label and (i, k) not in taken
                ]
                most, which = max(near, default=(0.0, -1))
                answers.append(most >= threshold)
                if answers[-1]:
                    taken.add((i, which))
            points = [
                (sum(answers[: m + 1]) / n, sum(answers[: m + 1]) / (m + 1)) for m in range(len(answers))
            ]
            every += [
                max((precision for recall, precision in points if recall >= step / 100 - 1e-12), default=0.0)
                for step in range(101)
            ]
    return sum(every) / len(every) if every else math.nan


def made(seed, n_images=6, n_classes=3):
    """Images with boxes, and what a poor detector finds in them: moved, doubled, mistaken and invented."""
    rng = random.Random(seed)

    def box():
        x, y = rng.uniform(0, 60), rng.uniform(0, 60)
        return (x, y, x + rng.uniform(8, 40), y + rng.uniform(8, 40))

    found, wanted = [], []
    for _ in range(n_images):
        here = [(box(), rng.randrange(n_classes)) for _ in range(rng.randrange(5))]
        seen = []
        for corners, label in here:
            for _ in range(rng.randrange(3)):
                moved = tuple(value + rng.gauss(0, 2.0) for value in corners)
                kind = label if rng.random() < 0.8 else rng.randrange(n_classes + 1)
                seen.append((moved, kind, rng.random()))
        seen += [(box(), rng.randrange(n_classes), rng.random() * 0.6) for _ in range(rng.randrange(3))]
        wanted.append(here)
        found.append(seen)
    return found, wanted


def as_tensors(found, wanted):
    return [
        {
            "boxes": torch.tensor([box for box, *_ in image], dtype=torch.float64).reshape(-1, 4),
            "labels": torch.tensor([row[1] for row in image], dtype=torch.long),
            "scores": torch.tensor([row[2] for row in image], dtype=torch.float64),
        }
        for image in found
    ], [
        {
            "boxes": torch.tensor([box for box, _ in image], dtype=torch.float64).reshape(-1, 4),
            "labels": torch.tensor([row[1] for row in image], dtype=torch.long),
        }
        for image in wanted
    ]


def measured(found, wanted, thresholds=None):
    metric = MeanAveragePrecision() if thresholds is None else MeanAveragePrecision(thresholds)
    found, wanted = as_tensors(found, wanted)
    for i in range(0, len(found), 4):  # in batches
        metric.update(found[i : i + 4], wanted[i : i + 4])
    return metric.compute().item()


@pytest.mark.parametrize("seed", range(20))
def test_it_is_that_of_the_definition(seed):
    found, wanted = made(seed)
    thresholds = [0.5 + 0.05 * i for i in range(10)]
    expected = by_definition(found, wanted, thresholds)
    assert measured(found, wanted) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert measured(found, wanted, [0.5]) == pytest.approx(by_definition(found, wanted, [0.5]), abs=1e-6)
    assert measured(found, wanted, [0.75]) == pytest.approx(by_definition(found, wanted, [0.75]), abs=1e-6)


# What pycocotools 2.0.11 says of `made(seed, n_images=20)`: AP, AP50 and AP75.
COCO = {
    0: (0.186295423, 0.41977631, 0.147722125),
    1: (0.229942789, 0.484357208, 0.161672333),
    2: (0.210366182, 0.465852117, 0.156346587),
    3: (0.180219236, 0.381278485, 0.119849128),
    4: (0.171592957, 0.447128596, 0.064275311),
    5: (0.264563202, 0.414961835, 0.318217536),
}


@pytest.mark.parametrize("seed", COCO)
def test_it_is_that_of_cocos_own_code(seed):
    found, wanted = made(seed, n_images=20)
    own = [measured(found, wanted, thresholds) for thresholds in (None, [0.5], [0.75])]
    assert own == pytest.approx(COCO[seed], abs=1e-6)


def test_what_is_found_rightly_is_perfect_and_what_is_invented_before_it_is_not():
    _, wanted = made(1)
    perfect = [[(box, label, 0.9) for box, label in image] for image in wanted]
    assert measured(perfect, wanted) == pytest.approx(1.0)
    invented = [[((0, 0, 1, 1), label) for _, label in image] for image in wanted]
    pairs = list(zip(perfect, invented, strict=True))
    later = [[*image, *((*row, 0.1) for row in more)] for image, more in pairs]
    assert measured(later, wanted) == pytest.approx(1.0)
    before = [
        [*image, *((*row, 0.95) for row in more)] for image, more in zip(perfect, invented, strict=True)
    ]
    assert measured(before, wanted) < 0.9
    twice = [[*image, *image] for image in perfect]
    assert measured(twice, wanted) < 1.0
    assert measured([[] for _ in wanted], wanted) == 0.0


def test_without_a_box_anywhere_it_is_no_number():
    assert math.isnan(measured([[((0, 0, 5, 5), 0, 0.5)]], [[]]))


def test_a_hundred_boxes_of_a_class_count_in_an_image():
    right, wrong = ((0.0, 0.0, 10.0, 10.0), 0, 0.1), ((50.0, 50.0, 60.0, 60.0), 0, 0.5)
    wanted = [[(right[0], 0)]]
    assert measured([[*[wrong] * 99, right]], wanted) == pytest.approx(1 / 100)
    assert measured([[*[wrong] * 100, right]], wanted) == 0.0


@pytest.mark.parametrize("thresholds", [[], [0.0], [0.5, 1.5]])
def test_impossible_thresholds_are_named(thresholds):
    with pytest.raises(ValueError, match="thresholds="):
        MeanAveragePrecision(thresholds)
