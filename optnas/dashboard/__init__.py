"""What `optnas dashboard` shows beside what optuna-dashboard does."""

__all__: list[str] = []
