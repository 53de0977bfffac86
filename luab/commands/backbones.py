"""Whether backbones work: those of a study, and for `luab backbones` the smallest model of each of timm's families.

With random weights, on random images. About ten minutes on one core.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import timm
import torch

from luab.benchmarks.catalogue import test_sets_of
from luab.cam import check_maps, class_maps, has_attention_maps, without_zeros
from luab.data.manifests.testsets import TEST_SETS
from luab.errors import ConfigError
from luab.model import LuabModel, classifiers_of
from luab.study.config import Study
from luab.study.paths import Run
from luab.study.recipes import Preprocessing, Recipe
from luab.tasks import Outputs, task_of
from luab.training.pretrained import name_of, preprocessing_of
from luab.training.trainer import build_checked_model

# The smallest model of each of timm's families, one per module of timm.models, and two distilled ones. deepseek_vit is
# left out: its only model has 412 million parameters.
FAMILIES = (
    "beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_768_32", "convnext_zepto_rms",
    "cpubone_nano", "crossvit_tiny_240", "cs3darknet_focus_s", "cspnext_tiny", "csatv2", "davit_tiny",
    "deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b",
    "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0", "efficientvim_m1", "efficientvit_b0",
    "efficientvit_m0",
    "ens_adv_inception_resnet_v2", "ese_vovnet19b_slim_dw", "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf",
    "gcvit_xxtiny", "gemma4_vit_167m", "ghostnet_050", "gmlp_ti16_224", "halonet_h1", "hardcorenas_b", "hgnetv2_b0",
    "hiera_tiny_224", "hrnet_w18_small", "iformer_t", "inception_next_atto", "inception_v3", "inception_v4",
    "jx_nest_tiny", "lcnetv2_small", "legacy_seresnet18", "legacy_xception", "levit_128s", "lowformer_b0",
    "mambaout_femto", "maxvit_pico_rw_256", "mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv5_base",
    "mobileone_s1", "mobilevit_xxs", "mvitv2_tiny", "naflexvit_base_patch16_parfac_gap", "nasnetalarge",
    "nextvit_small", "nf_regnet_b0", "pit_ti_224", "pit_ti_distilled_224", "pnasnet5large", "poolformerv2_s12",
    "pvt_v2_b0", "qwen3_vit_88m", "rdnet_tiny", "regnetx_002", "repghostnet_050", "repvit_m1", "res2next50",
    "resnest14d", "resnet10t", "resnetv2_18", "rexnet_100", "sam2_hiera_tiny", "samvit_base_patch16", "selecsls42",
    "sequencer2d_s", "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_224", "swinv2_tiny_window16_256", "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m",
    "twins_svt_small", "vgg11", "visformer_tiny", "vit_relpos_small_patch16_224", "vit_tiny_patch16_224",
    "vit_tiny_patch16_dinov3_qkvb", "vit_tiny_r_s16_p8_224", "vitamin_small_224", "volo_d1_224", "xception41",
    "xcit_nano_12_p16_224",
)  # fmt: skip
_SMALL_PX = 128
_IMAGES = 4
_UNORDERED = "the order of its tokens could not be confirmed"
_RECIPE = Recipe.model_validate(
    {"epochs": 1, "batch_size": 2, "optimizer": "sgd", "lr": 1, "weight_decay": 0, "warmup_epochs": 0}
)
_OUTPUTS = Outputs(classes=10, points=2, multi_label=False)


class Trial(NamedTuple):
    """What a model can do: "" where it works, else the reason why it does not."""

    name: str
    family: str
    parameters: int
    input_px: int
    classifiers: int
    head: str
    maps: str
    grid: str
    attention: str


def check_backbone(study: Study, run: Run) -> None:
    """Checks on the CPU, in seconds, that a run's backbone can be trained and has the score maps that its suites need.

    Raises:
        ConfigError: timm refuses its settings, luab does not support it, or its score maps are not defined.
    """
    recipe = study.recipe(run.backbone, run.dataset).seen_with(_preprocessing(study, run))
    outputs = task_of(run.dataset).outputs(study, run)
    model = build_checked_model(run.backbone, recipe, outputs)
    names = test_sets_of(study.part(run.dataset).benchmarks)
    for method in sorted({TEST_SETS[name].cam_method for name in names if TEST_SETS[name].cam}):
        checked = model
        if method == "stride1" and not hasattr(model.backbone, "num_prefix_tokens"):
            finer = recipe.model_copy(update={"model_kwargs": {**recipe.model_kwargs, "output_stride": 16}})
            checked = build_checked_model(run.backbone, finer, outputs)
        check_maps(checked, run.backbone, recipe.input_px, method)


def _preprocessing(study: Study, run: Run) -> Preprocessing:
    """The preprocessing that a run's first weights will have, as far as timm knows it before any training."""
    if first := study.first_run(run):
        return _preprocessing(study, first)
    weights = study.recipe(run.backbone, run.dataset).begins_with.timm
    return preprocessing_of(name_of(weights, run.backbone)) if weights else Preprocessing()


def try_families(names: Iterable[str] = FAMILIES, log: Callable[[str], object] = print) -> Iterator[Trial]:
    """Tries models one after the other; `log` gets one line for each."""
    for name in names:
        started = time.monotonic()
        trial = try_model(name)
        log(f"{name}: head {trial.head or 'yes'}; maps {trial.maps or 'yes'}; {time.monotonic() - started:.0f} s")
        yield trial


def try_model(name: str) -> Trial:
    """Tries head, gradient and score maps of one model, on images of 128 px if it accepts them."""
    family = str(timm.models.model_entrypoint(name).__module__).rpartition(".")[2]
    config = timm.get_pretrained_cfg(name)
    default = config.input_size[-1] if config else 224
    torch.manual_seed(0)
    reason = ""
    for input_px, arguments in ((_SMALL_PX, {"img_size": _SMALL_PX}), (_SMALL_PX, {}), (default, {})):
        recipe = _RECIPE.model_copy(update={"input_px": input_px, "model_kwargs": arguments})
        try:
            model = build_checked_model(name, recipe, _OUTPUTS)
        except ConfigError as error:
            reason = _short(error)
            continue
        trial = _tried(name, family, input_px, model)
        if trial.maps != _UNORDERED or input_px == default:
            return trial
    return Trial(name, family, 0, default, 0, reason, reason, "", reason)


def _tried(name: str, family: str, input_px: int, model: LuabModel) -> Trial:
    head = "" if _teaches(model, input_px) else "no gradient of the points reaches its first layer"
    maps, grid = _outcome(lambda: check_maps(model, name, input_px, "plain")), ""
    if not maps:
        rows, columns, in_order = _map_follows_image(model, input_px)
        grid = f"{rows} x {columns}"
        maps = "" if in_order or not _has_tokens(model, input_px) else _UNORDERED
    attention = "no such attention"
    if has_attention_maps(model):
        attention = _outcome(lambda: check_maps(model, name, input_px, "attention"))
    parameters = sum(parameter.numel() for parameter in model.backbone.parameters())
    return Trial(name, family, parameters, input_px, len(classifiers_of(model.backbone)), head, maps, grid, attention)


def _has_tokens(model: LuabModel, input_px: int) -> bool:
    """Whether the model ends in tokens, whose order is not that of a feature map by construction."""
    with torch.no_grad():
        return bool(model.backbone.forward_features(torch.zeros(1, 3, input_px, input_px)).ndim == 3)


def _teaches(model: LuabModel, input_px: int) -> bool:
    """Whether the points' loss changes the backbone from its first layer with weights on."""
    model.eval()
    images = torch.randn(2, 3, input_px, input_px, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(images)["points"].square().sum(), images)
    return bool(gradient.isfinite().all() and gradient.any())


def _map_follows_image(model: LuabModel, input_px: int) -> tuple[int, int, bool]:
    """Changes one quarter of an image at a time, and compares how much the quarters of the map change.

    Returns:
        Rows and columns of the map, and whether its quarters are in the order of the image's: no other order of them
        explains the changes better.
    """
    generator, half = torch.Generator().manual_seed(1), input_px // 2
    changes = torch.zeros(4, 4)
    model = without_zeros(model, generator)
    for _ in range(_IMAGES):
        changed = torch.randn(1, 3, input_px, input_px, generator=generator).repeat(5, 1, 1, 1)
        for quarter in range(4):
            rows, columns = (slice(half * k, half * (k + 1)) for k in divmod(quarter, 2))
            changed[quarter + 1, :, rows, columns] = torch.randn(3, half, half, generator=generator)
        maps = class_maps(model, changed, torch.zeros(5, dtype=torch.int64))
        difference = (maps[1:] - maps[:1]).abs()
        ends = [(slice(max(1, side // 2)), slice(-max(1, side // 2), None)) for side in maps.shape[1:]]
        parts = [difference[:, rows, columns].mean(dim=(1, 2)) for rows in ends[0] for columns in ends[1]]
        of_image = torch.stack(parts, dim=1)
        changes += of_image / of_image.mean()
    orders = list(itertools.permutations(range(4)))
    best = max(orders, key=lambda order: float(changes[range(4), order].sum()))
    return maps.shape[1], maps.shape[2], best == (0, 1, 2, 3)


def _outcome(check: Callable[[], object]) -> str:
    try:
        check()
    except ConfigError as error:
        return _short(error)
    return ""


def _short(error: ConfigError) -> str:
    text = " ".join(str(error).split())
    for start in ("because ", "no score map is defined for ", ": "):
        if start in text:
            text = text.split(start, maxsplit=1)[1]
            break
    return text.split("; choose")[0].split(". Remove")[0].split(". Correct")[0].replace("|", "\\|")[:140]


def page(trials: Iterable[Trial]) -> str:
    """docs/backbones.md: one line for each model."""
    rows = list(trials)
    lines = [_row(row) for row in rows]
    counts = {key: sum(getattr(row, key) in ("", _UNORDERED) for row in rows) for key in ("head", "maps", "attention")}
    return _PAGE.format(version=timm.__version__, n=len(rows), lines="\n".join(lines), **counts)


def _row(trial: Trial) -> str:
    head = "yes" if not trial.head else f"no: {trial.head}"
    if not trial.head and trial.classifiers > 1:
        head = f"yes, {trial.classifiers} classifiers"
    maps = f"yes, {trial.grid}" if not trial.maps else f"no: {trial.maps}"
    if trial.maps == _UNORDERED:
        maps = f"yes, {trial.grid}, but {_UNORDERED}"
    attention = (
        "yes" if not trial.attention else "–" if trial.attention == "no such attention" else f"no: {trial.attention}"
    )
    size = f"{trial.parameters / 1e6:.1f}" if trial.parameters else "–"
    return f"| {trial.family} | `{trial.name}` | {size} | {trial.input_px} | {head} | {maps} | {attention} |"


_PAGE = """# Backbones

Written by `luab backbones` with timm {version}: the smallest model of each of timm's families, with random weights and
on images of 128 px where the model accepts them. The byproduct head works for {head} of {n}, score maps for {maps}, and
relevance through the attention of all blocks for {attention}.

- **parameters**: millions, with 10 classes.
- **head**: class logits equal those of timm's model, and the gradient of the points reaches the image. The head reads
  what the classifier reads; with several classifiers of one width the mean of what they read, with several widths all
  of it.
- **score map**: rows x columns of the map (`luab.cam.class_maps`). For models that end in tokens, quarters of the image
  were changed one at a time, and the changes of the map agree best with tokens in the order of the image.
- **attention**: maps by the benchmarks whose names end in `_attention`; "–" for models without such attention, which
  get the score map above instead.

A backbone that is refused stops with this reason before its training starts. `luab doctor --backbones`
checks those of a study.

| family | model | parameters | px | head | score map | attention |
|---|---|---|---|---|---|---|
{lines}
"""
