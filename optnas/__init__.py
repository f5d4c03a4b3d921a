"""Neural architecture search with Optuna and PyTorch Lightning."""
