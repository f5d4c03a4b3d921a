import math

import torch

from optnas.tasks.boxes import decode, encode, intersection_over_union, unlike


def test_overlaps_are_those_by_hand() -> None:
    first = torch.tensor([[0.0, 0.0, 4.0, 4.0], [10.0, 10.0, 12.0, 12.0]])
    second = torch.tensor([[2.0, 2.0, 6.0, 6.0]])
    torch.testing.assert_close(intersection_over_union(first, second), torch.tensor([[4 / 28], [0.0]]))


def test_overlaps_are_those_of_counted_pixels() -> None:
    torch.manual_seed(0)
    low = torch.randint(0, 12, (30, 2))
    boxes = torch.cat([low, low + torch.randint(1, 9, (30, 2))], 1)
    places = torch.arange(20)
    within = (boxes[:, None, :2] <= places[:, None]) & (places[:, None] < boxes[:, None, 2:])
    painted = (within[:, :, None, 0] & within[:, None, :, 1]).flatten(1).float()
    common = painted @ painted.T
    union = painted.sum(1)[:, None] + painted.sum(1)[None] - common
    torch.testing.assert_close(intersection_over_union(boxes.float(), boxes.float()), common / union)


def test_boxes_are_decoded_as_they_were_encoded() -> None:
    boxes = torch.tensor([[3.0, 4.0, 30.0, 20.0], [10.0, 10.0, 12.0, 60.0]])
    anchors = torch.tensor([[0.0, 0.0, 32.0, 32.0], [8.0, 0.0, 24.0, 64.0]])
    offsets = encode(boxes, anchors)
    torch.testing.assert_close(decode(offsets, anchors), boxes)
    torch.testing.assert_close(
        offsets[0], torch.tensor([0.5 / 32, -4 / 32, math.log(27 / 32), math.log(0.5)])
    )


def test_what_is_kept_overlaps_nothing_kept_and_what_goes_overlaps_something_better() -> None:
    torch.manual_seed(0)
    low = torch.rand(120, 2) * 40
    boxes, classes = torch.cat([low, low + 10 + 20 * torch.rand(120, 2)], 1), torch.arange(120) % 2
    kept = unlike(boxes, classes, 0.4, 200).tolist()
    near = (intersection_over_union(boxes, boxes) > 0.4) & (classes[:, None] == classes)
    assert kept == sorted(kept)
    assert 2 < len(kept) < 119
    assert near[kept][:, kept].sum() == len(kept)  # each with itself
    for i in set(range(120)) - set(kept):
        assert any(near[i, j] for j in kept if j < i)
    assert unlike(boxes, classes, 0.4, 3).tolist() == kept[:3]
    assert unlike(boxes[:0], classes[:0], 0.4, 3).tolist() == []
