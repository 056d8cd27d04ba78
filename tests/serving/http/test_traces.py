"""Which headers name a trace."""

import pytest

from serving.http.traces import NONE, trace_of

VALID = f"00-{'0af7651916cd43dd' * 2}-00f067aa0ba902b7-01"


def test_a_valid_header_is_the_trace() -> None:
    assert trace_of(VALID) == VALID


@pytest.mark.parametrize(
    "header",
    [
        *(
            None,
            "",
            "-",
            VALID.upper(),
            VALID[:-1],
            f"{VALID}-1",
            f"{VALID}\n",
            f"ff{VALID[2:]}",
            VALID.replace("-", "_"),
        ),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{'0af7651916cd43dd' * 2}-{'0' * 16}-01",
    ],
)
def test_another_is_ignored(header: str | None) -> None:
    assert trace_of(header) == NONE
