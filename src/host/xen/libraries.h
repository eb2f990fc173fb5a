/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the Xen host needs beside libxenctrl (which xenctrl-sys binds). */
#include <libxl.h>
#include <libxl_utils.h>
#include <xenforeignmemory.h>
#include <xenstore.h>
