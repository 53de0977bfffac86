"""Names for the arrays that travel between modules; shapes and frames are stated here once.

Images  uint8 or float [batch, 3, height, width], RGB.
Logits  float [batch, 1000], ImageNet index order (sorted wnids).
Points  float [batch, 2], x to the right then y downwards, fractions of the crop's side.
Present bool [batch], whether the image has a point that survived the crop.
Targets float [batch, 1000], class distribution; rows sum to one.
"""

from typing import TypeAlias

from torch import Tensor

Images: TypeAlias = Tensor
Logits: TypeAlias = Tensor
Points: TypeAlias = Tensor
Present: TypeAlias = Tensor
Targets: TypeAlias = Tensor
