"""``python -m gotorb`` is the command `gotorb`."""

import sys

from gotorb.cli import main

sys.exit(main())
