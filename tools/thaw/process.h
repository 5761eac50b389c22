/* SPDX-License-Identifier: Apache-2.0 */
/* The process of a VM: this one, with the console on its stdin and stdout, or one in the
 * background. */
#ifndef TOOLS_PROCESS_H
#define TOOLS_PROCESS_H

#include "cli.h"
#include "vm_json.h"

/* In the foreground, runs the VM until it ends; detached, returns when it runs. Returns the
 * command's exit status; the reason of a failure has been told. In the process that is detached,
 * too, this returns, when the VM has ended. */
int process_run(const struct cli *cli, const struct vm_config *config, bool detach);

#endif
