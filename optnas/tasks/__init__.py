"""What a model learns: recipes that wrap any model into a LightningModule with loss, metrics and optimizer.

A task is a callable `(model, trial) -> LightningModule`. A function of your own is another.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.tasks.autoencoding import Autoencoding as Autoencoding
    from optnas.tasks.average_precision import MeanAveragePrecision as MeanAveragePrecision
    from optnas.tasks.classification import Classification as Classification
    from optnas.tasks.contrastive import Contrastive as Contrastive
    from optnas.tasks.contrastive import Siamese as Siamese
    from optnas.tasks.detection import Detection as Detection
    from optnas.tasks.detection import detect as detect
    from optnas.tasks.forecasting import Forecasting as Forecasting
    from optnas.tasks.language_modeling import LanguageModeling as LanguageModeling
    from optnas.tasks.multilabel import MultiLabel as MultiLabel
    from optnas.tasks.own_loss import OwnLoss as OwnLoss
    from optnas.tasks.recipe import Constant as Constant
    from optnas.tasks.recipe import Cosine as Cosine
    from optnas.tasks.recipe import OneCycle as OneCycle
    from optnas.tasks.recipe import Recipe as Recipe
    from optnas.tasks.regression import Regression as Regression
    from optnas.tasks.segmentation import Segmentation as Segmentation
    from optnas.tasks.supervised import Supervised as Supervised
    from optnas.tasks.tagging import Tagging as Tagging
    from optnas.tasks.task import Task as Task

__getattr__, __dir__, __all__ = lazily(__name__)
