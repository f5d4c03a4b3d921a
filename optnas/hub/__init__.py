"""Published spaces, one file each: the space, its network where the paper has one, its table of results."""

__all__: list[str] = []
