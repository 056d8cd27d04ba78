"""The page about bounds: its example runs, and its numbers are those of the code."""

import contextlib
import io
import math
import re
from pathlib import Path

from jobs.inevitability.bounds.cube import CubeBound
from jobs.inevitability.bounds.sparse import SparseBound

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "bounds.md"


def test_the_example_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert (
        "in the cube in L2, whose diameter is 8" in printed.getvalue() and "estimate of log U_c" in printed.getvalue()
    )


def test_numbers() -> None:
    text = PAGE.read_text()
    for form, name in (("sharp", "log U_c < {} ("), ("paper", "the paper's form: {}")):
        limit = CubeBound(n=784, p=math.inf, form=form).log_density_limit  # type: ignore[arg-type]
        assert name.format(f"{limit:.4f}") in text
    assert f"= {8 - math.pi / math.log(2):.3f} bits per dimension" in text
    assert SparseBound(n=784).log_density_limit < 2 * SparseBound(n=784, form="paper").log_density_limit
