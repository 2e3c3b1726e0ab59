"""`python -m taskstore_daemon`: one daemon in the foreground. `taskstore daemon run` does the same."""

import sys

from .main import main

sys.exit(main())
