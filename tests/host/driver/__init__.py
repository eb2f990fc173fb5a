"""The emulated Xen host's driver: builds, starts, watches and measures it."""
