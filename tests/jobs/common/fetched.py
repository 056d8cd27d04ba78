"""Which packages `make data` has fetched: tests of what is in the others are skipped."""

import pytest

from jobs.common.data.package_files import Package
from jobs.common.data.sets import default_folder


def needs(*packages: Package) -> pytest.MarkDecorator:
    """Skips a test, with the reason, where some of them are absent."""
    absent = [package.package for package in packages if not package.is_complete(default_folder())]
    return pytest.mark.skipif(bool(absent), reason=f"`make data` has not fetched {', '.join(absent)}")
