"""`python -m service …` is the same as `assay …`."""

import sys

from service.cli.commands import main

sys.exit(main())
