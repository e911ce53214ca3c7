"""`python -m ftlab` is `ftlab`."""

import sys

from ftlab.main import main

sys.exit(main())
