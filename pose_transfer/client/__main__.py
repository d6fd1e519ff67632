# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.client queue`."""

import sys

from .cli import main

sys.exit(main())
