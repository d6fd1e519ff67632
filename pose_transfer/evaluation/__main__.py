# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.evaluation`: the quality benchmark."""

from .benchmark import main

main()
