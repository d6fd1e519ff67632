# SPDX-License-Identifier: GPL-3.0-or-later
"""Training: one loop on accelerate, the stages that make the demo models, a user's own data."""
