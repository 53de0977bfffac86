"""torchvision's own networks load an exported state dict and return the same; other networks keep luab's names."""

from dataclasses import replace

import pytest
import torch
from torchvision.models import get_model

from luab.transfer.export import _arguments, exported


def _shaken(network):
    """Weights and statistics that a wrong name or order would show."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if "running" in name or name.endswith("bn1.weight"):
            tensor.copy_(1 + 0.2 * torch.rand(tensor.shape, generator=generator))
    return network.eval()


def test_fcn_resnet50_of_torchvision_returns_the_same(setup):
    one = replace(setup("segmentation", auxiliary=0.5), backbone="resnet50", arguments={})
    network = _shaken(one.new_network())
    name, weights = exported(one, network)
    assert name == "fcn_resnet50"
    theirs = get_model(name, **_arguments(one))
    theirs.load_state_dict(weights)
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (one.preprocessing.mean, one.preprocessing.std))
    with torch.no_grad():
        ours, others = network(image)["out"], theirs.eval()((image - mean) / std)["out"]
    assert torch.allclose(ours, others, atol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_fasterrcnn_resnet50_fpn_of_torchvision_returns_the_same(setup, frozen):
    sizes = {"head_channels": 256, "box_head_channels": 1024, "anchors_px": (32, 64, 128, 256, 512)}
    keys = {"frozen_norm": frozen, "rpn_proposals": 1000, "shorter_px": 64, "longest_px": 64}
    one = replace(setup("detection", **sizes, **keys), backbone="resnet50", arguments={})
    network = _shaken(one.new_network())
    name, weights = exported(one, network)
    assert name == "fasterrcnn_resnet50_fpn"
    theirs = get_model(name, **_arguments(one))
    theirs.load_state_dict(weights)
    network.roi_heads.score_thresh = theirs.roi_heads.score_thresh = 0.0
    with torch.no_grad():
        (ours,), (others,) = network([torch.ones(3, 64, 64)]), theirs.eval()([torch.ones(3, 64, 64)])
    assert len(ours["boxes"]) and torch.allclose(ours["scores"], others["scores"], atol=1e-4)
    smaller = one.recipe.model_copy(update={"anchors_px": (16, 32, 64, 128, 256)})
    assert exported(replace(one, recipe=smaller), network)[0] is None  # same weights, other boxes


def test_a_network_that_torchvision_does_not_have_keeps_its_names(setup):
    for one in (setup("segmentation"), replace(setup("detection"), backbone="resnet50", arguments={})):
        network = one.new_network()
        name, weights = exported(one, network)
        assert name is None and weights.keys() == network.state_dict().keys()
