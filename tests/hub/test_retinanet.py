import pytest
import torch
from fixtures.hub import learns, n_params
from torch import nn

from optnas.hub import resnet, retinanet
from optnas.testing import check_space
from optnas.trial import replay


def test_the_published_network_is_a_member_of_the_published_size() -> None:
    # torchvision documents 34014999 for retinanet_resnet50_fpn, without the backbone's batch normalization.
    backbone = n_params(resnet.network, resnet.R50, (2, 3, 64, 64))
    with torch.device("meta"):
        model = retinanet.network(replay(retinanet.R50))
        model(torch.zeros(1, 3, 64, 64))
    norms = [m for m in model.features.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    frozen = sum(p.numel() for m in norms for p in m.parameters())
    assert frozen == 53_120
    assert n_params(retinanet.network, retinanet.R50, (1, 3, 64, 64)) - frozen == 34_014_999
    convs = backbone - (2048 * 1000 + 1000) - frozen
    pyramid = sum(c * 256 + 256 for c in (512, 1024, 2048)) + 5 * (256 * 256 * 9 + 256)
    heads = 8 * (256 * 256 * 9 + 256) + 256 * 9 * 9 * (91 + 4) + 9 * (91 + 4)
    assert convs + pyramid + heads == 34_014_999


def test_anchors_lie_in_the_order_of_the_outputs() -> None:
    small = retinanet.network(
        replay(retinanet.params_of((1, 1, 1, 1), width=64)), classes=2, backbone_width=4
    )
    for height, width in [(64, 64), (70, 130), (33, 20)]:
        scores, offsets, boxes = small(torch.randn(2, 3, height, width))
        assert torch.equal(boxes, retinanet.anchors(height, width))
        assert scores.shape == (2, len(boxes), 2)
        assert offsets.shape == (2, len(boxes), 4)
    # The first nine lie around the first place of the largest map, the next nine 8 pixels to the right.
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    torch.testing.assert_close(middle[:10], torch.tensor([[4.0, 4.0]] * 9 + [[12.0, 4.0]]))
    size = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(size[1], torch.tensor([32.0, 32.0]))
    torch.testing.assert_close(size[0].prod(), torch.tensor(1024.0))
    torch.testing.assert_close(size[0, 1] / size[0, 0], torch.tensor(0.5))
    # Scores of one place of one map come from that place: the first map's first place, its nine anchors.
    x = torch.randn(1, 3, 64, 64)
    maps = small.eval().pyramid(small.features(x)[1:])
    torch.testing.assert_close(small(x)[0][0, :9], small.scores(maps[0])[0, :, 0, 0].reshape(9, 2))
    torch.testing.assert_close(small(x)[0][0, 9:18], small.scores(maps[0])[0, :, 0, 1].reshape(9, 2))


def test_the_smallest_anchor_may_fit_small_images() -> None:
    params = retinanet.params_of((1, 1, 1, 1), width=64)
    small = retinanet.network(replay(params), classes=2, backbone_width=4, smallest=16)
    boxes = small(torch.randn(2, 3, 64, 64))[2]
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    usual = retinanet.anchors(64, 64)
    torch.testing.assert_close(torch.cat([middle - 2 * half, middle + 2 * half], 1), usual)
    with pytest.raises(ValueError, match=r"smallest=0 must be above 0, in pixels"):
        retinanet.network(replay(params), smallest=0)


@pytest.mark.parametrize("width", [16, 64])
def test_narrow_heads_pass_on_as_much_of_the_image_as_published_ones(width: int) -> None:
    def passed(wide: int) -> float:
        torch.manual_seed(0)
        head = retinanet.Detector(nn.Identity(), nn.Identity(), wide, 4, 3).offsets
        with torch.no_grad():
            return float(head(torch.randn(4, wide, 8, 8)).std())

    assert passed(width) == pytest.approx(passed(256), rel=0.3)


def test_it_is_a_space_whose_networks_learn() -> None:
    small = {"depth": (1, 2), "width": (4, 8), "backbone_width": 4, "head_depth": (1, 2), "classes": 3}
    check_space(lambda trial: retinanet.network(trial, **small), (2, 3, 33, 32), n_samples=2)
    params = retinanet.params_of((1, 1, 1, 1), width=64)
    learns(retinanet.network(replay(params), classes=3, backbone_width=4), torch.randn(2, 3, 32, 32), lr=1e-3)
