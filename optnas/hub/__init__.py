"""Published spaces, one file each."""

__all__: list[str] = []
