// SPDX-License-Identifier: Apache-2.0
// Does to the VMM what no driver would: one misdeed per run, chosen by op=. What is survivable ends
// with status 0; the others end as the VMM says, or not at all.
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "ports.h"
#include "tsc.h"

const char guest_name[] = "hostile";

enum {
    BUFFER_BYTES = 3 * 4096,
    VIRTIO_STRIDE = 0x1000,
    LAPIC_ICR = 0x300,
};

#define VIRTIO_GPA  0xd0000000ull
#define VIRTIO_END  0xd0010000ull
#define IOAPIC_GPA  0xfec00000ull
#define LAPIC_GPA   0xfee00000ull
#define HOLE_GPA    0xc0000000ull   /* 3 GiB: RAM ends here at the latest */
#define FAR_ADDRESS 0x4000200000ull /* of linear memory; map_far says what is there */
#define LARGE_PAGE  0x200000ull

static uint8_t buffer[BUFFER_BYTES] __attribute__((aligned(4096)));

struct misdeed {
    const char *name;
    void (*run)(const struct boot_info *boot);
};

static uint32_t random_state;

extern uint64_t page_tables[]; /* start.S; beyond 4 GiB they need pages of 1 GiB */
static uint64_t directories[2][512] __attribute__((aligned(4096)));

/* Maps two large pages each: what lies at 4 GiB, and at FAR_ADDRESS - LARGE_PAGE the two ends of
 * what a physical address can be: the last page, and nothing where 256 GiB would be. */
static void map_far(void)
{
    uint64_t *pdpt = (uint64_t *)(page_tables[0] & ~0xfffull);
    uint64_t top = 1ull << (cpu_cpuid(0x80000008).eax & 0xff);

    directories[0][0] = 0xe3 | 4ull << 30;
    directories[1][0] = 0xe3 | (top - LARGE_PAGE);
    directories[1][1] = 0xe3 | (FAR_ADDRESS < top ? FAR_ADDRESS : top / 2);
    pdpt[4] = (uint64_t)directories[0] | 0x23;
    pdpt[FAR_ADDRESS >> 30] = (uint64_t)directories[1] | 0x23;
}

static uint32_t random_u32(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return random_state ^ random_state >> 15;
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void in_any(uint16_t port, unsigned width)
{
    uint32_t value;

    if (width == 1)
        __asm__ volatile("inb %w1, %b0" : "=a"(value) : "Nd"(port) : "memory");
    else if (width == 2)
        __asm__ volatile("inw %w1, %w0" : "=a"(value) : "Nd"(port) : "memory");
    else
        __asm__ volatile("inl %w1, %0" : "=a"(value) : "Nd"(port) : "memory");
}

static void out_any(uint16_t port, uint32_t value, unsigned width)
{
    if (width == 1)
        cpu_outb(port, (uint8_t)value);
    else if (width == 2)
        outw(port, (uint16_t)value);
    else
        cpu_outl(port, value);
}

static void touch(uint64_t gpa, unsigned width, bool write, uint64_t value)
{
    switch (width) {
    case 1:
        if (write)
            *(volatile uint8_t *)gpa = (uint8_t)value;
        else
            (void)*(volatile uint8_t *)gpa;
        break;
    case 2:
        if (write)
            *(volatile uint16_t *)gpa = (uint16_t)value;
        else
            (void)*(volatile uint16_t *)gpa;
        break;
    case 4:
        if (write)
            *(volatile uint32_t *)gpa = (uint32_t)value;
        else
            (void)*(volatile uint32_t *)gpa;
        break;
    default:
        if (write)
            *(volatile uint64_t *)gpa = value;
        else
            (void)*(volatile uint64_t *)gpa;
    }
}

/* Every port, but the one that ends the guest whatever is written. */
static void every_port(const struct boot_info *boot)
{
    uint64_t from = option_u64(boot->cmdline, "from", 0);
    uint64_t to = option_u64(boot->cmdline, "to", 0x10000);

    for (uint64_t port = from; port < to; port++) {
        for (unsigned width = 1; width <= 4; width *= 2) {
            in_any((uint16_t)port, width);
            if (port != PORT_EXIT)
                out_any((uint16_t)port, port & 1 ? 0xffffffff : 0, width);
        }
    }
}

static void string_io(uint16_t port, void *memory, uint64_t count)
{
    void *at = memory;
    uint64_t left = count;

    __asm__ volatile("rep outsb" : "+S"(at), "+c"(left) : "d"(port) : "memory");
    at = memory;
    left = count / 2;
    __asm__ volatile("rep outsw" : "+S"(at), "+c"(left) : "d"(port) : "memory");
    at = memory;
    left = count / 4;
    __asm__ volatile("rep outsl" : "+S"(at), "+c"(left) : "d"(port) : "memory");
    at = memory;
    left = count;
    __asm__ volatile("rep insb" : "+D"(at), "+c"(left) : "d"(port) : "memory");
    at = memory;
    left = count / 4;
    __asm__ volatile("rep insl" : "+D"(at), "+c"(left) : "d"(port) : "memory");
}

/* Across page boundaries, backwards, and between a port and a device's registers. */
static void string_ports(const struct boot_info *boot)
{
    static const uint16_t ports[] = {0x80, 0x3fd, 0x3ff, 0x600, 0xdf, 0xf2, 0x64, 0x21, 0xffff};

    (void)boot;
    for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
        string_io(ports[i], buffer + 1, 64);
        string_io(ports[i], buffer + 4096 - 7, 64);
        string_io(ports[i], (void *)VIRTIO_GPA, 64);
        string_io(ports[i], (void *)(VIRTIO_END - 8), 16);
    }
    __asm__ volatile("std" : : : "memory");
    string_io(0x80, buffer + 4096 + 3, 16);
    __asm__ volatile("cld" : : : "memory");
}

/* One instruction that goes on for longer than anybody waits. */
static void endless_string(const struct boot_info *boot)
{
    uint64_t port = option_u64(boot->cmdline, "port", 0x80);
    uint64_t left = UINT64_MAX;
    void *at = buffer;

    mark(1);
    if (option_u64(boot->cmdline, "in", 0))
        __asm__ volatile("rep insb" : "+D"(at), "+c"(left) : "d"((uint16_t)port) : "memory");
    else
        __asm__ volatile("rep outsb" : "+S"(at), "+c"(left) : "d"((uint16_t)port) : "memory");
}

static void scribble_virtio(const struct boot_info *boot)
{
    uint64_t rounds = option_u64(boot->cmdline, "rounds", 40);

    for (uint64_t i = 0; i < rounds * 256; i++) {
        uint64_t slot = random_u32() % 4 ? random_u32() % 3 : random_u32() % 16;
        uint64_t offset = random_u32() % 0x140;
        unsigned width = 1u << random_u32() % 4;
        uint32_t value = random_u32() % 2 ? random_u32() : random_u32() % 16;

        if (random_u32() % 2) { /* as registers want it */
            width = 4;
            offset &= ~3ull;
        }
        touch(VIRTIO_GPA + slot * VIRTIO_STRIDE + offset, width, i % 4, value);
    }
}

static void around(uint64_t gpa)
{
    for (unsigned width = 1; width <= 8; width *= 2) {
        for (unsigned before = 0; before <= 8; before++) {
            touch(gpa - before, width, false, 0);
            touch(gpa - before, width, true, ~gpa);
        }
    }
}

/* Where RAM, devices and address spaces begin and end. */
static void edges(const struct boot_info *boot)
{
    uint64_t ram_end = option_u64(boot->cmdline, "ram", 16) << 20;

    (void)boot;
    around(ram_end);
    around(HOLE_GPA);
    around(VIRTIO_GPA);
    around(VIRTIO_GPA + VIRTIO_STRIDE);
    around(VIRTIO_END);
    around(IOAPIC_GPA);
    around(LAPIC_GPA);
    around(1ull << 32);
    around(FAR_ADDRESS); /* the last physical address, and one far away */
}

static void jump(uint64_t gpa)
{
    mark(1);
    __asm__ volatile("jmp *%0" : : "r"(gpa));
}

static void jump_to_device(const struct boot_info *boot)
{
    (void)boot;
    jump(VIRTIO_GPA);
}

static void jump_to_nothing(const struct boot_info *boot)
{
    (void)boot;
    jump(FAR_ADDRESS);
}

static void no_idt(const struct boot_info *boot)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {0, 0};

    (void)boot;
    mark(1);
    __asm__ volatile("lidt %0; ud2" : : "m"(pointer));
}

/* Fine where guests run natively. */
static void vector_instruction(const struct boot_info *boot)
{
    uint64_t cr0, cr4;

    (void)boot;
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr0" : : "r"((cr0 | 2) & ~4ull));
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | 0x600));
    mark(1);
    __asm__ volatile("haddps %xmm1, %xmm2");
}

static void sleep_for_ever(const struct boot_info *boot)
{
    (void)boot;
    mark(1);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* Other CPUs start where there is no code, again and again. */
static void start_garbage(const struct boot_info *boot)
{
    uint64_t khz = tsc_khz(boot->cmdline);
    static const uint8_t pages[] = {0x00, 0x9f, 0xa0, 0xe0, 0xff, 0x08};

    for (uint64_t i = 1;; i++) {
        apic_send_init_to_others();
        tsc_spin_until(cpu_rdtsc() + khz / 10);
        apic_send_startup_to_others(pages[i % sizeof(pages)]);
        tsc_spin_until(cpu_rdtsc() + khz / 2);
        mark(i);
    }
}

/* All registers of the interrupt controllers; no INIT and no start-up, which are another misdeed.
 */
static void scribble_apics(const struct boot_info *boot)
{
    (void)boot;
    for (unsigned round = 0; round < 20; round++) {
        for (uint64_t offset = 0; offset < 0x400; offset += 4)
            if (offset != LAPIC_ICR)
                touch(LAPIC_GPA + offset, 4, true, random_u32() & 0xfff0ffff);
        for (uint32_t index = 0; index < 0x40; index++) {
            cpu_write_mmio(IOAPIC_GPA, index);
            cpu_write_mmio(IOAPIC_GPA + 0x10, random_u32());
            (void)cpu_read_mmio(IOAPIC_GPA + 0x10);
        }
        for (uint16_t port = 0x20; port < 0x22; port++)
            cpu_outb(port, (uint8_t)random_u32());
        for (uint16_t port = 0x40; port < 0x44; port++)
            cpu_outb(port, (uint8_t)random_u32());
    }
}

/* What the loader left: tables, boot parameters, the generation id. */
static void scribble_low_memory(const struct boot_info *boot)
{
    (void)boot;
    for (uint64_t gpa = 0x500; gpa < 0x100000; gpa += 64)
        *(volatile uint64_t *)gpa = ~gpa;
}

/* As many exits as possible, of every kind, for ever. */
static void storm(const struct boot_info *boot)
{
    (void)boot;
    for (uint64_t i = 1;; i++) {
        cpu_outb(0x80, (uint8_t)i);
        (void)cpu_read_mmio(VIRTIO_GPA);
        cpu_outsb(0x80, buffer + 4090, 12);
        touch(FAR_ADDRESS - 4, 8, true, i);
        (void)cpu_inb(PORT_COM1_LSR);
        mark(i);
    }
}

static const struct misdeed misdeeds[] = {
    {"ports", every_port},
    {"strings", string_ports},
    {"endless", endless_string},
    {"virtio", scribble_virtio},
    {"edges", edges},
    {"jump-device", jump_to_device},
    {"jump-nothing", jump_to_nothing},
    {"triple", no_idt},
    {"vector", vector_instruction},
    {"sleep", sleep_for_ever},
    {"sipi", start_garbage},
    {"apics", scribble_apics},
    {"low", scribble_low_memory},
    {"storm", storm},
};

int guest_main(const struct boot_info *boot)
{
    random_state = (uint32_t)option_u64(boot->cmdline, "seed", 1);
    for (unsigned i = 0; i < sizeof(misdeeds) / sizeof(misdeeds[0]); i++) {
        if (!option_is(boot->cmdline, "op", misdeeds[i].name))
            continue;
        map_far();
        say("hostile: ready %s\n", misdeeds[i].name);
        misdeeds[i].run(boot);
        say("hostile: ok\n");
        return 0;
    }
    fail("op= names no misdeed");
}
