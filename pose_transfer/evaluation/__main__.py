# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.evaluation demo | folder | retrieval`."""

import sys

from .cli import main

sys.exit(main())
