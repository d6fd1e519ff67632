# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.evaluation demo | one-shot | truepose | folder | retrieval`."""

import sys

from .cli import main

sys.exit(main())
