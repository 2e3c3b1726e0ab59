"""`python -m taskstore_daemon`: one daemon in the foreground. `taskstore daemon run` does the same."""

import sys

from .surroundings import detach

if "--detach" in sys.argv:
    detach()  # before anything is imported that takes long or starts a thread

from .main import main

sys.exit(main())
