import math

import pytest
import torch
from fixtures.tasks import fit, no_questions
from torch import nn

from optnas.data import TensorData, random_box_flip
from optnas.hub import retinanet
from optnas.tasks import Detection, MeanAveragePrecision, detect
from optnas.tasks.boxes import decode, encode, intersection_over_union
from optnas.tasks.detection import detection_loss
from optnas.trial import replay

PLACES = retinanet.anchors(64, 64)
BOXES = torch.tensor(
    [[[4.0, 4.0, 40.0, 36.0], [30.0, 20.0, 62.0, 60.0]], [[10.0, 10.0, 50.0, 50.0], [0.0] * 4]]
)
CLASSES = torch.tensor([[0, 2], [1, -1]])


def right():
    """Scores and offsets that say the boxes, whichever anchors stand for them."""
    scores, offsets = torch.full((2, len(PLACES), 3), -20.0), torch.zeros(2, len(PLACES), 4)
    for i in range(2):
        overlap = intersection_over_union(PLACES, BOXES[i])
        for k in range(2 - i):
            own = (overlap.argmax(1) == k) & (overlap[:, k] >= 0.5)
            assert own.any()
            scores[i, own, CLASSES[i, k]] = 20.0
            offsets[i, own] = encode(BOXES[i, k], PLACES[own])
    return scores, offsets


def test_the_loss_is_least_where_scores_and_boxes_are_right():
    scores, offsets = right()
    least = detection_loss((scores, offsets, PLACES), (BOXES, CLASSES))
    assert least < 1e-6
    for worse in [(-scores, offsets), (scores, offsets + 1), (scores.flip(2), offsets)]:
        assert detection_loss((*worse, PLACES), (BOXES, CLASSES)) > 0.1
    overlap = intersection_over_union(PLACES, BOXES[1, :1])[:, 0]
    between = (overlap >= 0.4) & (overlap < 0.5)
    assert between.any()
    scores[1, between] = 20.0  # they do not count
    torch.testing.assert_close(detection_loss((scores, offsets, PLACES), (BOXES, CLASSES)), least)


def test_the_loss_of_an_image_is_that_by_hand():
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [20.0, 0.0, 28.0, 8.0], [0.0, 20.0, 8.0, 28.0]])
    scores, offsets = torch.tensor([[[0.3], [-0.2], [0.1]]]), torch.tensor([[[0.5, 0.05, 0, 0]] * 3])
    targets = torch.tensor([[[0.0, 0.0, 8.0, 8.0]]]), torch.tensor([[0]])

    def probability(score):
        return 1 / (1 + math.exp(-score))

    there = -0.3 * (1 - probability(0.3)) ** 1.5 * math.log(probability(0.3))
    absent = [-0.7 * probability(s) ** 1.5 * math.log(1 - probability(s)) for s in (-0.2, 0.1)]
    smooth = 0.5 - 0.5 / 9 + 0.5 * 0.05**2 * 9  # of the first anchor alone
    loss = detection_loss((scores, offsets, anchors), targets, focus=1.5, balance=0.3)
    assert loss.item() == pytest.approx(there + sum(absent) + smooth, rel=1e-4)


def test_the_nearest_anchor_stands_for_a_box_that_none_overlaps_by_half():
    anchors = torch.tensor([[0.0, 0.0, 32.0, 32.0], [32.0, 0.0, 64.0, 32.0]])
    small = torch.tensor([[[4.0, 4.0, 14.0, 14.0]]])
    assert intersection_over_union(anchors, small[0]).max() < 0.2
    scores = torch.full((1, 2, 1), -20.0)
    missed = detection_loss((scores, torch.zeros(1, 2, 4), anchors), (small, torch.tensor([[0]])))
    scores[0, 0] = 20.0
    exact = encode(small[0], anchors[:1]).expand(1, 2, 4)
    assert missed > 1
    assert detection_loss((scores, exact, anchors), (small, torch.tensor([[0]]))) < 1e-6


def test_an_image_without_boxes_has_the_loss_of_its_background():
    scores = torch.zeros(1, len(PLACES), 3)
    loss = detection_loss((scores, torch.ones(1, len(PLACES), 4), PLACES), (BOXES[:1], CLASSES[:1] * 0 - 1))
    assert loss.item() == pytest.approx(3 * len(PLACES) * 0.75 * 0.25 * math.log(2), rel=1e-4)


def test_boxes_that_a_detector_means_are_found_once():
    scores, offsets = right()
    found = detect((scores, offsets, PLACES), (64, 64))
    for image, boxes, classes in zip(found, BOXES, CLASSES, strict=True):
        order = image["labels"].argsort()
        counted = classes >= 0
        assert image["labels"][order].tolist() == classes[counted].tolist()
        torch.testing.assert_close(image["boxes"][order], boxes[counted], rtol=1e-4, atol=1e-3)
    assert [len(image["scores"]) for image in detect((scores, offsets, PLACES), max_boxes=1)] == [1, 1]
    assert detect((scores - 40, offsets, PLACES))[0]["boxes"].shape == (0, 4)


def test_scores_fall_and_no_box_leaves_the_image():
    torch.manual_seed(0)
    output = torch.randn(2, len(PLACES), 3) - 3, torch.randn(2, len(PLACES), 4), PLACES
    for image in detect(output, (64, 60), min_score=0.1, max_overlap=0.3):
        scores, boxes = image["scores"], image["boxes"]
        assert 5 < len(scores) <= 100
        assert (scores.diff() <= 0).all()
        assert scores.min() >= 0.1
        assert boxes.min() >= 0
        assert boxes[:, [0, 2]].max() <= 60
        assert boxes[:, [1, 3]].max() <= 64
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        close = intersection_over_union(boxes, boxes) > 0.3
        assert (close & (image["labels"][:, None] == image["labels"])).sum() == len(boxes)
    for image, at, where in zip(detect(output, min_score=0.1), *output[:2], strict=True):
        best = at.sigmoid().max()  # the first box found is that of the largest score
        assert image["scores"][0] == best
        anchor = int(at.sigmoid().amax(1).argmax())
        torch.testing.assert_close(image["boxes"][0], decode(where[anchor], PLACES[anchor]))


def squares(n, seed):
    """Images `(n, 3, 64, 64)` of a red or a blue rectangle, or both."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.randn(n, 3, 64, 64, generator=generator)
    size = torch.randint(24, 40, (n, 2, 2), generator=generator)
    low = (torch.rand(n, 2, 2, generator=generator) * (64 - size)).long()
    boxes = torch.cat([low, low + size], 2).float()
    classes = torch.tensor([0, 1]).repeat(n, 1)
    for i in range(n):
        shown = int(torch.randint(0, 3, (), generator=generator))
        for k in range(2):
            if shown == 2 or shown == k:
                left, top, right, bottom = boxes[i, k].long().tolist()
                images[i, 2 * k, top:bottom, left:right] += 1
            else:
                classes[i, k] = -1
    return images, (boxes, classes)


@pytest.fixture
def detector():
    torch.manual_seed(0)
    params = {**retinanet.params_of((1, 1, 1, 1), block="basic", width=64), "head_depth": 1}
    model = retinanet.network(replay(params), classes=2, backbone_width=8)
    model(torch.zeros(2, 3, 64, 64))
    return model


def test_a_small_detector_learns_where_things_are(detector):
    data = TensorData(
        squares(96, 0), val=squares(24, 1), test=squares(24, 2), batch_size=8, mix=random_box_flip
    )
    metrics = fit(Detection(lr=2e-3)(detector, no_questions()), data, epochs=10)
    assert metrics["val_map_50"] > 0.6
    assert 0.2 < metrics["val_map"] < metrics["val_map_50"]
    images, (boxes, classes) = data.test
    with torch.no_grad():
        found = detect(detector.eval()(images), (64, 64))
    metric = MeanAveragePrecision()
    metric.update(
        found, [{"boxes": b[k >= 0], "labels": k[k >= 0]} for b, k in zip(boxes, classes, strict=True)]
    )
    assert metrics["test_map"] == pytest.approx(metric.compute().item(), abs=1e-5)


def test_targets_may_be_a_list_of_dicts(detector):
    images, (boxes, classes) = squares(6, 3)
    listed = [{"boxes": b[k >= 0], "labels": k[k >= 0]} for b, k in zip(boxes, classes, strict=True)]
    module = Detection()(detector.eval(), no_questions())
    loss = module.training_step((images, (boxes, classes)), 0)
    assert module.training_step((images, listed), 0).item() == pytest.approx(loss.item(), rel=1e-6)
    assert len(module.predict_step([images, listed], 0)) == 6


def test_mirrored_boxes_lie_where_their_images_say():
    images, (boxes, classes) = squares(40, 4)
    mirrored, (moved, same) = random_box_flip(images, (boxes, classes), torch.Generator().manual_seed(0))
    assert torch.equal(same, classes)
    flipped = (mirrored != images).flatten(1).any(1)
    assert 8 < flipped.sum() < 32
    for i in range(40):
        for k in range(2):
            if classes[i, k] >= 0:
                left, top, right, bottom = moved[i, k].long().tolist()
                inside = mirrored[i, 2 * k, top:bottom, left:right].mean()
                assert inside > 0.9
            else:
                assert torch.equal(moved[i, k], boxes[i, k])


@pytest.mark.parametrize(
    ("output", "boxes", "classes", "words"),
    [
        (torch.zeros(2, 5, 3), BOXES, CLASSES, "returned a Tensor"),
        (
            (torch.zeros(2, 5, 3), torch.zeros(2, 4, 4), PLACES[:5]),
            BOXES,
            CLASSES,
            r"\(2, 5, 3\), \(2, 4, 4\)",
        ),
        (None, BOXES[:, :, :3], CLASSES, r"\(2, 2, 3\)"),
        (None, BOXES[:, :0], CLASSES[:, :0], "k of at least 1"),
        (None, BOXES, CLASSES.float(), "torch.float32"),
        (None, BOXES, CLASSES + 1, "0..2, and a box is of class 3"),
        (None, BOXES.flip(2), CLASSES, "x1 < x2"),
        (None, BOXES / 64, CLASSES, "in pixels"),
    ],
)
def test_what_does_not_fit_is_named(output, boxes, classes, words):
    class Says(nn.Module):
        def forward(self, x):
            return output or (torch.zeros(2, 5, 3), torch.zeros(2, 5, 4), PLACES[:5])

    if isinstance(output, torch.Tensor):
        Says.forward = lambda self, x: output
    module = Detection()(Says(), no_questions())
    with pytest.raises(ValueError, match=words):
        module.training_step((torch.zeros(2, 3, 64, 64), (boxes, classes)), 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"matched": 0.3}, "background <= matched"),
        ({"min_score": 1.5}, "min_score=1.5"),
        ({"focus": -1}, "focus=-1"),
        ({"max_boxes": 0}, "max_boxes=0"),
    ],
)
def test_settings_out_of_range_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        Detection(**options)
