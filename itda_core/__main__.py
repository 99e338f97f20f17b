"""python -m itda_core COMMAND; see cli."""

import sys

from itda_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
