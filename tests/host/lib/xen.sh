# SPDX-License-Identifier: LGPL-2.1-or-later
# The Xen that the emulated host runs: XEN=4.17 (Debian 12's, the default) or 4.20
# (Debian 13's), and the Debian release that all of the host's packages are of.
# Sourced; expects nothing.

export XEN=${XEN:-4.17}
case $XEN in
4.17) xen_debian=bookworm xen_least=4.17.7 ;;
4.20) xen_debian=trixie xen_least=4.20.4 ;;
*) echo "XEN=$XEN: there is no such host (4.17 and 4.20 are)" >&2; exit 2 ;;
esac
export VICOVER_APT_RELEASE=$xen_debian
