"""Run the command line: `python -m rmr_sdk` is `rmr`."""

import sys

from rmr_sdk.cli import main

if __name__ == "__main__":
    sys.exit(main())
