"""What models are trained on: tensors, tables, images, columns by name, and how data modules are set up.

Names are loaded on first use.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.data.augment import in_turn as in_turn
    from optnas.data.augment import random_color as random_color
    from optnas.data.augment import random_cutout as random_cutout
    from optnas.data.augment import random_flip as random_flip
    from optnas.data.augment import random_jitter as random_jitter
    from optnas.data.augment import random_scale as random_scale
    from optnas.data.augment import random_shift as random_shift
    from optnas.data.augment import random_time_mask as random_time_mask
    from optnas.data.augment import random_token_mask as random_token_mask
    from optnas.data.columns import ColumnData as ColumnData
    from optnas.data.columns import padded as padded
    from optnas.data.digits import Digits as Digits
    from optnas.data.fingerprint import data_fingerprint as data_fingerprint
    from optnas.data.images import ImageFolder as ImageFolder
    from optnas.data.mixing import random_box_flip as random_box_flip
    from optnas.data.mixing import random_cutmix as random_cutmix
    from optnas.data.mixing import random_mixup as random_mixup
    from optnas.data.table import TableData as TableData
    from optnas.data.tensors import Batches as Batches
    from optnas.data.tensors import TensorData as TensorData

__getattr__, __dir__, __all__ = lazily(__name__)
