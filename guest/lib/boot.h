// SPDX-License-Identifier: Apache-2.0
// The C side of start.S: one function per boot protocol, neither of which returns.
// Guests don't need this header.
#ifndef GUEST_BOOT_H
#define GUEST_BOOT_H

#include <stdint.h>

struct hvm_start_info;

void boot_linux(const uint8_t *boot_params);
void boot_pvh(const struct hvm_start_info *info);

#endif
