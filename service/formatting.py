"""Numbers, times and metrics as people read them."""

from collections.abc import Mapping


def number(value: float | str) -> str:
    """A number for people: whole ones with commas up to 15 digits, others with three significant digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) < 10**15:
        return f"{value:,}"
    return f"{value:,.0f}" if 100 <= abs(value) < 10**6 else f"{value:.3g}"


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs, as undecodable names of files hold, written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `12 s`, `3 min 5 s`, `2 h 14 min`."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def metrics_text(row: Mapping[str, float]) -> str:
    """`loss 0.1234, accuracy 0.98`"""
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items())
