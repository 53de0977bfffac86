"""Type names for tensors, with their shapes and coordinate frames.

Images  uint8 or float [batch, 3, height, width], RGB.
Logits  float [batch, 1000], ImageNet index order (sorted wnids).
Points  float [batch, 2], x to the right, y downwards, fractions of the crop's side.
Targets float [batch, 1000], class distribution; rows sum to one.
Batch   tensors by name: images, labels, points, weights, as the data sets return them.
Outputs tensors by name: logits, points if there is a byproduct head, pooled, features, as `LuabModel` returns them.
"""

from typing import TypeAlias

from torch import Tensor

Images: TypeAlias = Tensor
Logits: TypeAlias = Tensor
Points: TypeAlias = Tensor
Targets: TypeAlias = Tensor
Batch: TypeAlias = dict[str, Tensor]
Outputs: TypeAlias = dict[str, Tensor]
