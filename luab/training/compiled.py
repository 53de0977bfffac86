"""torch.compile for the backbone of a training."""

import contextlib
import time
from collections.abc import Iterator

import torch

from luab.training.trainer import Trainer, random_state, restore_random_state

BACKEND = "inductor"


def compile_backbone(trainer: Trainer) -> str:
    """Compiles the backbone, which the trainer then uses; if this fails in any process, all of them train without it.

    It is tried on a batch of zeros, forwards and backwards, so that a training fails here or not at all. Nothing of the
    trial remains: weights, buffers, random numbers and names in the state dict stay the same.

    Returns:
        "compiled in <s> s", or "not compiled: <reason>".
    """
    backbone, started, reason = trainer.model.backbone, time.monotonic(), ""
    if trainer.model.attributed or trainer.model.seen_through:
        return f"not compiled: `use: {trainer.use}` needs second derivatives, which torch.compile does not have"
    # Only this method: it has nearly all of the computation, and the heads register hooks at each call. As an attribute
    # of the instance it hides the method without a module around the backbone.
    backbone.forward_features = torch.compile(backbone.forward_features, backend=BACKEND, dynamic=False)
    try:
        with _no_trace(trainer):
            _try(trainer)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # torch.compile has no common class of its errors
        cause = getattr(error, "inner_exception", error)
        reason = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
    reasons = [one for one in trainer.processes.gather(reason) if one]
    if not reasons:
        return f"compiled in {time.monotonic() - started:.0f} s"
    del backbone.forward_features
    return f"not compiled: {reasons[0]}"


def _try(trainer: Trainer) -> None:
    side = trainer.recipe.training_px
    images = trainer.laid_out(torch.zeros(trainer.split.images, 3, side, side, device=trainer.device))
    with trainer.processes.averaged(trainer.network, last=False):
        with trainer.autocast():
            outputs = trainer.network(images)
        sum(output.float().sum() for output in outputs.values()).backward()


@contextlib.contextmanager
def _no_trace(trainer: Trainer) -> Iterator[None]:
    model, state = trainer.model.train(), random_state(trainer.device)
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        restore_random_state(state, trainer.device)
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        model.zero_grad(set_to_none=True)
