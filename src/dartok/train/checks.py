"""Rules that several parts of the configuration share."""

__all__ = ["at_least"]


def at_least(flag: str, value: int | None, lowest: int) -> None:
    """Refuse a setting below its lowest value; None is one that is not set."""
    if value is not None and value < lowest:
        raise ValueError(f"{flag} must be >= {lowest}, got {value}")
