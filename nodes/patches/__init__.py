# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapters that let our methods ride on the host's stock MODEL, one module per method.

Every adapter works on a clone and adds to what is there; beside `host.py` and `stock_models.py`
these are the only modules that import `comfy`.
"""
