import base64
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReportPage:
    title: str
    run_id: str
    status: str
    spec_yaml: str
    facts: Any
    figures: Any
    tables: Any
    trials: Any
    errors: Any
    provenance: Any


def render(page: ReportPage) -> bytes:
    return "".join(
        f"<img src=data:image/png;base64,{base64.b64encode(d).decode()}>" for _, _, d in page.figures
    ).encode()
