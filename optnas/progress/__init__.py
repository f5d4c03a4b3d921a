"""What a search shows while it runs: a live table to who watches, lines in logs, JSON for machines."""

from optnas.progress.progress import Progress, Show

__all__ = ["Progress", "Show"]
