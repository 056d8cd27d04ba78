"""The trace that a request belongs to, as its client says in `traceparent`: by it the request is followed through logs.

Source: W3C Trace Context, section 3.2.
"""

import re

HEADER = "traceparent"
NONE = "-"
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_of(traceparent: str | None) -> str:
    """What the header holds; "-" if there is none, or none that is valid."""
    return traceparent if traceparent and _FORM.fullmatch(traceparent) else NONE
