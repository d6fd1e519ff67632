# SPDX-License-Identifier: GPL-3.0-or-later
"""What the FPDM paper reports, to print beside one's own numbers (Lee et al., tables 1 to 4).

Measured by its authors on the test sets of DeepFashion and RWTH-PHOENIX-Weather 2014T, and by
nobody here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Row = Mapping[str, float]


@dataclass(frozen=True)
class PaperTable:
    """Rows by method; the measures have the keys of `folder.MEASURES`. `size` (H, W) in px."""

    title: str
    size: tuple[int, int]
    rows: Mapping[str, Row]


def _fashion(*numbers: float) -> Row:
    names = ("fid_train", "fid_test", "lpips", "ssim", "psnr")
    return dict(zip(names, numbers, strict=True))


def _signs(*numbers: float) -> Row:
    return dict(zip(("ssim", "hand_ssim", "hand_error", "fid_test"), numbers, strict=True))


TABLES = (
    PaperTable(
        "DeepFashion, 512 x 352",
        (512, 352),
        {
            "CFLD": _fashion(7.149, 6.177, 0.1819, 0.7478, 17.645),
            "PCDM": _fashion(7.747, 6.086, 0.1729, 0.7471, 18.028),
            "FPDM, B4": _fashion(7.464, 5.797, 0.1734, 0.7466, 18.125),
            "FPDM, B6": _fashion(7.534, 5.884, 0.1717, 0.7487, 18.197),
            "the truth through the VAE": _fashion(8.492, 1.488, 0.0212, 0.9149, 30.633),
        },
    ),
    PaperTable(
        "DeepFashion, 256 x 176",
        (256, 176),
        {
            "CFLD": _fashion(6.804, 5.688, 0.1519, 0.7378, 18.235),
            "PIDM": _fashion(6.812, 5.168, 0.2006, 0.6621, 15.630),
            "FPDM, B6": _fashion(7.318, 5.459, 0.1445, 0.7417, 18.832),
            "the truth through the VAE": _fashion(8.338, 1.250, 0.0103, 0.9634, 34.878),
        },
    ),
    PaperTable(
        "RWTH-PHOENIX-Weather 2014T, 260 x 210",
        (260, 210),
        {
            "SignGAN": _signs(0.759, 0.605, 22.05, 27.75),
            "FPDM, B6": _signs(0.886, 0.6816, 21.43, 5.129),
        },
    ),
)

RETRIEVAL: Mapping[str, tuple[float, float, float, float]] = {
    # R@1, R@3, R@5, mean rank
    "A1, the source's embedding": (0.000, 0.450, 0.609, 63.85),
    "A2, IPF, baseline loss": (0.050, 0.793, 0.976, 3.474),
    "A3, IPF, source-enhanced loss": (0.997, 0.985, 0.998, 1.325),
}
"""As printed: A3's R@3 lies below its R@1, which ranks cannot do; one of the two is a misprint."""


def table_for(size: tuple[int, int]) -> PaperTable | None:
    """The table measured at pictures of that size (H, W); None where there is none."""
    return next((table for table in TABLES if table.size == size), None)
