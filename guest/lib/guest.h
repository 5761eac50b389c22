// SPDX-License-Identifier: Apache-2.0
// What a guest provides (guest_name, guest_main) and the services that every guest uses.
// Interrupts, the local APIC, ACPI and the TSC have headers of their own.
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the loader passed, whichever of the two boot protocols it used. */
struct boot_info {
    const char *cmdline; /* never NULL */
    uint64_t initrd_gpa;
    uint64_t initrd_bytes; /* 0: no initrd */
    uint64_t ram_bytes;    /* usable memory, all ranges together */
    uint64_t rsdp_gpa;     /* ACPI root pointer, 0: none given */
};

/* Provided by each guest. The value of guest_main() becomes the exit status. */
extern const char guest_name[];
int guest_main(const struct boot_info *boot);

/* Writes one formatted line, at most 191 bytes, to the serial port. Knows %s, %lu and %lx. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

/* Prints "NAME: FAIL ..." and ends the guest with status 1. */
__attribute__((format(printf, 1, 2), noreturn)) void fail(const char *format, ...);

/* Ends the guest. */
__attribute__((noreturn)) void guest_exit(uint32_t status);

/* Tells the VMM that marker `number` was reached. */
void mark(uint64_t number);

/* Returns the next received byte, or -1. Never waits. */
int serial_read(void);

/* Returns the value of the first word "key=value" at or after `words`, or NULL. To find a further
 * one continue from the value returned. The value ends at a space or at the end of the string. */
const char *option_find(const char *words, const char *key);

/* Whether the word "key=value" is there with exactly this value. */
bool option_is(const char *cmdline, const char *key, const char *value);

/* The number behind "key=", decimal or 0x hexadecimal; `fallback` without the word. A value that
 * isn't a number fails the guest. */
uint64_t option_u64(const char *cmdline, const char *key, uint64_t fallback);

/* Copies the value of "key=", shortened to what fits, into `ret_value`; empty without the word. */
void option_copy(const char *cmdline, const char *key, char *ret_value, size_t value_size);

/* Reads a number, decimal or 0x hexadecimal, and returns the first character after it; returns
 * `text` itself when there is no number. */
const char *parse_u64(const char *text, uint64_t *ret_value);

#endif
