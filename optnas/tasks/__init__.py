"""What a model learns: recipes that wrap any model into a LightningModule with loss, metrics and optimizer.

A task is a callable `(model, trial) -> LightningModule`. A function of your own is another.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.tasks.classification import Classification as Classification
    from optnas.tasks.recipe import Constant as Constant
    from optnas.tasks.recipe import Cosine as Cosine
    from optnas.tasks.recipe import OneCycle as OneCycle
    from optnas.tasks.recipe import Recipe as Recipe
    from optnas.tasks.regression import Regression as Regression
    from optnas.tasks.supervised import Supervised as Supervised
    from optnas.tasks.task import Task as Task

__getattr__, __dir__, __all__ = lazily(__name__)
