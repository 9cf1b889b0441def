"""``python -m modzy_relay``: the operator's commands."""

import sys

from modzy_relay.cli import main

if __name__ == "__main__":
    sys.exit(main())
