# SPDX-License-Identifier: GPL-3.0-or-later
"""Training on a user's own pictures: `python -m pose_transfer.training METHOD --config FILE`.

A method is a settings dataclass and a task (see `task.py`), entered in `METHODS` of `methods.py`;
data, augmentation, resumption, several processes, sheets and curves are the same for all of them.
"""
