# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks that find people, their points, garments and faces in pictures.

Every backend has a module of its own, imported where it is used: each needs another optional
package. Here is only the interface that all of them share.
"""

from .base import Face, FaceEncoder, PersonParser, PoseDetector

__all__ = ["Face", "FaceEncoder", "PersonParser", "PoseDetector"]
