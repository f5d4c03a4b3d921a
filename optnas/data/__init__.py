"""What models are trained on: data in memory, a real data set, and how data modules are set up.

Names are loaded on first use.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.data.augment import random_flip as random_flip
    from optnas.data.augment import random_shift as random_shift
    from optnas.data.digits import Digits as Digits
    from optnas.data.fingerprint import data_fingerprint as data_fingerprint
    from optnas.data.tensors import Batches as Batches
    from optnas.data.tensors import TensorData as TensorData

__getattr__, __dir__, __all__ = lazily(__name__)
