"""`python -m service …` is the same as `assay …`."""

import sys

from service.cli import main

sys.exit(main())
