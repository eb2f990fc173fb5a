# SPDX-License-Identifier: LGPL-2.1-or-later
"""The emulated Xen host's driver: builds, starts, watches and measures it."""
