# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded demo models: small, trained on rendered mannequins, and good for those only."""
