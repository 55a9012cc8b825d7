"""The web page from a clone or on a Space; installed, it is `efp app`, which has the same options."""

import sys

from efp_hf.commands.app import main

if __name__ == "__main__":
    sys.exit(main())
