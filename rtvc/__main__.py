"""`python -m rtvc` is the same as `rtvc`."""

import sys

from rtvc.cli import main

if __name__ == "__main__":
    sys.exit(main())
