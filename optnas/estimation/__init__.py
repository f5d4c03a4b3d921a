"""How a model is scored: what an estimator is, and what identifies how it scores."""

__all__: list[str] = []
