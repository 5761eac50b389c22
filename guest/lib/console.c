// SPDX-License-Identifier: Apache-2.0
// Talks to the outside: serial lines, the mark port, the end of the guest.
// Not a terminal: input is raw bytes, and nothing is echoed.
#include "cpu.h"
#include "guest.h"
#include "ports.h"

#include <stdarg.h>

/* A line is put together in memory and sent by one instruction, since each emulated one counts. */
struct line {
    size_t bytes;
    char text[192];
};

static void add_char(struct line *line, char c)
{
    if (line->bytes < sizeof(line->text))
        line->text[line->bytes++] = c;
}

static void add_string(struct line *line, const char *s)
{
    while (*s)
        add_char(line, *s++);
}

static void add_number(struct line *line, uint64_t value, unsigned int base)
{
    char digits[20];
    size_t n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n)
        add_char(line, digits[--n]);
}

static void add_format(struct line *line, const char *format, va_list args)
{
    for (const char *f = format; *f; f++) {
        if (*f != '%') {
            add_char(line, *f);
            continue;
        }
        f++;
        if (*f == 's') {
            add_string(line, va_arg(args, const char *));
        } else {
            f++; /* the l of %lu and %lx */
            add_number(line, va_arg(args, uint64_t), *f == 'x' ? 16 : 10);
        }
    }
}

static void send(struct line *line)
{
    cpu_outsb(PORT_COM1, line->text, line->bytes);
}

void say(const char *format, ...)
{
    struct line line;
    va_list args;

    line.bytes = 0;
    va_start(args, format);
    add_format(&line, format, args);
    va_end(args);
    send(&line);
}

void fail(const char *format, ...)
{
    struct line line;
    va_list args;

    line.bytes = 0;
    add_string(&line, guest_name);
    add_string(&line, ": FAIL ");
    va_start(args, format);
    add_format(&line, format, args);
    va_end(args);
    add_char(&line, '\n');
    send(&line);
    guest_exit(1);
}

void guest_exit(uint32_t status)
{
    cpu_outl(PORT_EXIT, status);
    cpu_outb(PORT_KBD, KBD_RESET);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void mark(uint64_t number)
{
    cpu_outl(PORT_MARK, (uint32_t)number);
}

int serial_read(void)
{
    if (!(cpu_inb(PORT_COM1_LSR) & COM1_LSR_DATA))
        return -1;
    return cpu_inb(PORT_COM1);
}
