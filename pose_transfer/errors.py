# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that the person at the graph can mend.

Everything else raises a plain `ValueError`. The text of every error says what was got, what was
expected and what to do.
"""


class PoseTransferError(ValueError):
    """Base of the errors whose text tells an artist what to change."""


class NoPersonError(PoseTransferError):
    """An image that must show a person shows none that could be found."""


class NoFaceError(PoseTransferError):
    """An image that must show a face shows none that could be found."""


class PoseError(PoseTransferError):
    """A pose that is empty, unreadable, or lacks the points that are needed."""


class ParsingError(PoseTransferError):
    """A parsing map that lacks the regions that are needed or does not fit its picture."""


class MissingDependencyError(PoseTransferError):
    """An optional package is not installed; the text names what to install."""


class CheckpointError(PoseTransferError):
    """A weights file is missing, damaged, refused, or not of the expected kind."""
