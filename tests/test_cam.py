"""Score maps compared with their definitions."""

import pytest
import timm
import torch

from luab.cam import attention_maps, check_maps, class_maps
from luab.errors import ConfigError
from luab.model import with_byproduct_head

IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 4, 9])


def _scaled(maps):
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low)


def test_a_resnet_map_equals_classifier_weights_times_features():
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=10).eval()
    with torch.no_grad():
        features = backbone.forward_features(IMAGES)  # [3, 96, 2, 2]
        expected = torch.einsum("nc,nchw->nhw", backbone.fc.weight[CLASSES], features)
    maps = class_maps(with_byproduct_head(backbone).eval(), IMAGES, CLASSES)
    assert torch.allclose(_scaled(maps), _scaled(expected), atol=1e-4)
    assert torch.allclose(maps * features[0, 0].numel(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("test_vit", {"img_size": 64}, (3, 4, 4)),
        ("test_convnext", {}, (3, 2, 2)),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)}, (3, 2, 2)),
    ],
)
def test_shapes_and_independence_of_the_images_of_a_batch(name, arguments, shape):
    torch.manual_seed(0)
    model = with_byproduct_head(timm.create_model(name, num_classes=10, **arguments)).eval()
    model.requires_grad_(False)
    maps = class_maps(model, IMAGES, CLASSES)
    assert maps.shape == shape and maps.dtype == torch.float32 and maps.isfinite().all()
    alone = class_maps(model, IMAGES[1:2], CLASSES[1:2])
    assert torch.allclose(maps[1:2], alone, atol=1e-5)
    if name == "test_vit":
        assert maps.min() >= 0


@pytest.mark.parametrize("name", ["vit_relpos_small_patch16_224", "vit_srelpos_small_patch16_224"])
def test_attention_with_relative_positions_is_refused_by_name(name):
    model = with_byproduct_head(timm.create_model(name, num_classes=10, img_size=64, depth=1)).eval()
    with pytest.raises(ConfigError, match="VisionTransformerRelPos: cam_method 'attention' gives a constant map"):
        attention_maps(model, IMAGES, CLASSES)
    assert class_maps(model, IMAGES, CLASSES).shape == (3, 4, 4)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("maps_of", [class_maps, attention_maps])
def test_blocks_without_one_square_of_tokens_are_refused_by_name(images, maps_of):
    model = with_byproduct_head(timm.create_model("tnt_s_legacy_patch16_224", num_classes=10, img_size=64, depth=1))
    with pytest.raises(ConfigError, match="TNT: no score map is defined for blocks that get tokens of shape"):
        maps_of(model.eval(), IMAGES[:images], CLASSES[:images])


def _vit(**arguments):
    torch.manual_seed(0)
    return with_byproduct_head(timm.create_model("test_vit", num_classes=10, img_size=64, **arguments)).eval()


def test_attention_map_of_one_block_by_the_formula():
    # With one block the relevance is 1 + A, so the class token's row over the patches is A: positive gradient x
    # attention.
    model = _vit(depth=1)
    backbone = model.backbone
    attention = backbone.blocks[0].attn
    with torch.no_grad():
        entered = backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(IMAGES))))
        normed = backbone.blocks[0].norm1(entered)
        n, tokens, _ = normed.shape
        q, k, v = attention.qkv(normed).reshape(n, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = ((q * attention.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
    weights.requires_grad_()
    mixed = attention.proj((weights @ v).transpose(1, 2).reshape(n, tokens, -1))
    block = backbone.blocks[0]
    after = entered + block.ls1(mixed)
    after = after + block.ls2(block.mlp(block.norm2(after)))
    logits = model.heads(backbone.norm(after))["logits"]
    (gradient,) = torch.autograd.grad(logits.gather(1, CLASSES.view(-1, 1)).sum(), weights)
    expected = (gradient * weights).clamp(min=0).mean(dim=1)[:, 0, 1:].detach().reshape(3, 4, 4)
    model.requires_grad_(False)
    maps = attention_maps(model, IMAGES, CLASSES)
    assert expected.max() > 0 and torch.allclose(maps, expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("arguments", [{}, {"class_token": False, "global_pool": "avg"}])
def test_attention_map_of_two_blocks_is_the_product(arguments):
    """(1 + second)(1 + first): the second block distributes the output of the first."""
    model = _vit(depth=2, **arguments)
    caught = []
    for block in model.backbone.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, output: caught.append(output))
    logits = model(IMAGES)["logits"]
    gradients = torch.autograd.grad(logits.gather(1, CLASSES.view(-1, 1)).sum(), caught)
    first, second = ((g * a).clamp(min=0).mean(dim=1).detach() for g, a in zip(gradients, caught, strict=True))
    product = (torch.eye(first.shape[-1]) + second) @ (torch.eye(first.shape[-1]) + first)
    prefix = model.backbone.num_prefix_tokens
    row = product[:, 0] if prefix else product.mean(dim=1)
    maps = attention_maps(model, IMAGES, CLASSES)
    expected = row[:, prefix:].reshape(3, 4, 4)
    assert prefix == (0 if arguments else 1)
    assert torch.allclose(maps, expected, rtol=1e-4, atol=1e-10)
    swapped = (torch.eye(first.shape[-1]) + first) @ (torch.eye(first.shape[-1]) + second)
    assert not torch.allclose(product, swapped, rtol=1e-4, atol=1e-10)


def test_token_maps_by_the_formula():
    """Patch tokens entering the last block, times their mean gradient, summed over channels, at least 0."""
    model = _vit()
    entered = []
    model.backbone.blocks[-1].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    logits = model(IMAGES)["logits"]
    (gradient,) = torch.autograd.grad(logits.gather(1, CLASSES.view(-1, 1)).sum(), entered)
    tokens, gradient = entered[0][:, 1:], gradient[:, 1:]
    expected = torch.einsum("nc,ntc->nt", gradient.mean(dim=1), tokens).clamp(min=0).reshape(3, 4, 4)
    maps = class_maps(model, IMAGES, CLASSES)
    assert expected.max() > 0 and torch.allclose(maps, expected, rtol=1e-4, atol=1e-8)


def test_attention_maps_depend_on_class_and_image():
    model = _vit()
    model.requires_grad_(False)
    maps = attention_maps(model, IMAGES, CLASSES)
    assert maps.shape == (3, 4, 4) and maps.min() >= 0 and maps.isfinite().all()
    assert torch.allclose(maps[1:2], attention_maps(model, IMAGES[1:2], CLASSES[1:2]), rtol=1e-3, atol=1e-8)
    assert not torch.allclose(maps, attention_maps(model, IMAGES, CLASSES.flip(0)), rtol=0.1)
    many = attention_maps(model, IMAGES.repeat(15, 1, 1, 1), CLASSES.repeat(15))  # several chunks
    assert torch.allclose(many[:3], maps, rtol=1e-3, atol=1e-8) and len(many) == 45


def test_the_model_is_not_changed():
    model = _vit()
    before = [block.attn.fused_attn for block in model.backbone.blocks]
    attention_maps(model, IMAGES, CLASSES)
    assert [block.attn.fused_attn for block in model.backbone.blocks] == before
    assert not any(block.attn.attn_drop._forward_hooks for block in model.backbone.blocks)


def test_a_cnn_gets_its_class_activation_map():
    torch.manual_seed(0)
    model = with_byproduct_head(timm.create_model("test_resnet", num_classes=10)).eval()
    assert torch.equal(attention_maps(model, IMAGES, CLASSES), class_maps(model, IMAGES, CLASSES))


def test_a_backbone_without_score_maps_is_refused():
    model = with_byproduct_head(timm.create_model("pit_ti_224", num_classes=10, img_size=64)).eval()
    with pytest.raises(ConfigError, match="no score map is defined for features of shape"):
        class_maps(model, IMAGES, CLASSES)


def test_the_map_of_an_mlp_mixer_is_classifier_weights_times_tokens():
    torch.manual_seed(0)
    backbone = timm.create_model("mixer_s32_224", num_classes=10, img_size=64).eval()
    torch.nn.init.normal_(backbone.head.weight)
    with torch.no_grad():
        tokens = backbone.forward_features(IMAGES)  # [3, 4, 512]
        expected = torch.einsum("nc,ntc->nt", backbone.head.weight[CLASSES], tokens).reshape(3, 2, 2)
    maps = class_maps(with_byproduct_head(backbone).eval(), IMAGES, CLASSES)
    assert torch.allclose(_scaled(maps), _scaled(expected), atol=1e-4)


@pytest.mark.parametrize("name", ["cait_xxs24_224", "xcit_nano_12_p16_224", "hiera_tiny_224", "twins_svt_small"])
def test_tokens_without_a_class_token_have_a_map(name):
    model = with_byproduct_head(timm.create_model(name, num_classes=10, img_size=128))
    check_maps(model, name, 128, "plain")
    side = {"cait_xxs24_224": 8, "xcit_nano_12_p16_224": 8}.get(name, 4)
    assert class_maps(model.eval(), torch.rand(3, 3, 128, 128), CLASSES).shape == (3, side, side)


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "coat_tiny"])
def test_several_maps_of_tokens_are_refused_by_name(name):
    model = with_byproduct_head(timm.create_model(name, num_classes=10))
    with pytest.raises(ConfigError, match=r"no score map is defined for features of shape \[\(2, "):
        check_maps(model, name, 240 if "240" in name else 224, "plain")


def test_the_check_of_maps_refuses_constant_ones_and_changes_no_weight():
    model = with_byproduct_head(timm.create_model("test_vit", num_classes=10, img_size=64))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_maps(model, "test_vit", 64, "attention")
    assert model.training and all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    relpos = with_byproduct_head(timm.create_model("vit_relpos_small_patch16_224", img_size=64, depth=1))
    with pytest.raises(ConfigError, match="constant map for attention with relative positions"):
        check_maps(relpos, "vit_relpos_small_patch16_224", 64, "attention")
