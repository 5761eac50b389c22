// SPDX-License-Identifier: Apache-2.0
// CPUID and the first registers of a fresh guest. State of a running vCPU is handled elsewhere.

#include "cpu_x86.h"
#include "machine.h"
#include <asm/kvm_para.h>
#include <string.h>
#include <sys/ioctl.h>

/* Leaves and bits: AMD64 Architecture Programmer's Manual, volume 3, appendix E; Intel SDM volume
 * 2, CPUID; KVM's own: Linux Documentation/virt/kvm/x86/cpuid.rst. */
#define LEAF_FEATURES           0x1u
#define LEAF_CACHES             0x4u
#define LEAF_MORE_FEATURES      0x7u
#define LEAF_PERFMON            0xau
#define LEAF_TOPOLOGY           0xbu
#define LEAF_XSTATE             0xdu
#define LEAF_TOPOLOGY_V2        0x1fu
#define LEAF_KVM_FEATURES       0x40000001u
#define LEAF_AMD_FEATURES       0x80000001u
#define LEAF_AMD_SIZES          0x80000008u
#define LEAF_AMD_CACHES         0x8000001du
#define LEAF_AMD_TOPOLOGY       0x8000001eu
#define LEAF_AMD_PERFMON        0x80000022u
#define FEATURES_ECX_MONITOR    (1u << 3)
#define FEATURES_ECX_VMX        (1u << 5)
#define FEATURES_ECX_DEADLINE   (1u << 24)
#define FEATURES_ECX_OSXSAVE    (1u << 27)
#define FEATURES_ECX_HYPERVISOR (1u << 31)
#define FEATURES_EDX_APIC       (1u << 9)
#define FEATURES_EDX_HTT        (1u << 28)
#define MORE_FEATURES_ECX_OSPKE (1u << 4)
#define KVM_ASYNC_PF_BITS                                                                          \
    (1u << KVM_FEATURE_ASYNC_PF | 1u << KVM_FEATURE_ASYNC_PF_VMEXIT |                              \
        1u << KVM_FEATURE_ASYNC_PF_INT)
#define AMD_ECX_SVM           (1u << 2)
#define AMD_ECX_PERFCTR       (1u << 23 | 1u << 24 | 1u << 28)
#define TOPOLOGY_TYPE_SMT     1u
#define TOPOLOGY_TYPE_CORE    2u

#define MSR_MTRR_DEF_TYPE     0x2ffu
#define MTRR_ENABLED_WB       (1u << 11 | 6u)
#define MSR_MTRR_PHYS_BASE0   0x200u
#define MSR_MTRR_PHYS_MASK0   0x201u
#define MTRR_UNCACHED         0u
#define MTRR_VALID            (1u << 11)
#define PHYSICAL_BITS_DEFAULT 36 /* of a processor that has no leaf 0x80000008 */
#define CR0_PE_ET_NE_PG       (1u << 0 | 1u << 4 | 1u << 5 | 1u << 31)
#define CR4_PAE               (1u << 5)
#define EFER_LME_LMA          (1u << 8 | 1u << 10)
#define APIC_LVT_LINT0        0x350
#define APIC_LVT_LINT1        0x360
#define APIC_MASKED           (1u << 16)
#define APIC_DELIVERY_NMI     (4u << 8)
#define APIC_DELIVERY_EXTINT  (7u << 8)

/* Applies to every entry of the template: what no guest of ours may see. */
static void mask_entry(struct kvm_cpuid_entry2 *entry, bool tsc_deadline)
{
    switch (entry->function) {
    case LEAF_FEATURES:
        entry->ecx &= ~FEATURES_ECX_VMX;
        entry->ecx |= FEATURES_ECX_HYPERVISOR;
        if (tsc_deadline)
            entry->ecx |= FEATURES_ECX_DEADLINE;
        break;
    case LEAF_PERFMON:
    case LEAF_AMD_PERFMON:
        /* Counters do not survive a snapshot in any meaningful way. */
        entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
        break;
    case LEAF_KVM_FEATURES:
        entry->eax &= ~KVM_ASYNC_PF_BITS;
        break;
    case LEAF_AMD_FEATURES:
        entry->ecx &= ~(AMD_ECX_SVM | AMD_ECX_PERFCTR);
        break;
    }
}

int cpu_x86_template(const struct kvm *kvm, struct cpu_x86_cpuid *ret, struct thaw_error *error)
{
    struct cpu_x86_cpuid found = {.head.nent = CPU_X86_CPUID_MAX};
    if (ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, &found) < 0)
        return error_errno(error, errno, "asking KVM which processor features guests can have");
    bool tsc_deadline = kvm_check(kvm, KVM_CAP_TSC_DEADLINE_TIMER) != 0;
    for (uint32_t i = 0; i < found.head.nent; i++)
        mask_entry(&found.entries[i], tsc_deadline);
    *ret = found;
    return 0;
}

int cpu_x86_read(int vcpu_fd, struct cpu_x86_cpuid *ret, struct thaw_error *error)
{
    ret->head.nent = CPU_X86_CPUID_MAX;
    if (ioctl(vcpu_fd, KVM_GET_CPUID2, ret) < 0)
        return error_errno(error, errno, "reading a vCPU's features");
    /* Some backends count all the room they were given. */
    const struct kvm_cpuid_entry2 none = {0};
    uint32_t count = MIN(ret->head.nent, (uint32_t)CPU_X86_CPUID_MAX);
    while (count > 0 && memcmp(&ret->entries[count - 1], &none, sizeof(none)) == 0)
        count--;
    ret->head.nent = count;
    return 0;
}

static void drop_leaf(struct cpu_x86_cpuid *cpuid, uint32_t leaf)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cpuid->head.nent; i++)
        if (cpuid->entries[i].function != leaf)
            cpuid->entries[kept++] = cpuid->entries[i];
    cpuid->head.nent = kept;
}

static void add_topology(
    struct cpu_x86_cpuid *cpuid, uint32_t leaf, uint32_t index, uint32_t count, uint32_t core_bits)
{
    const struct kvm_cpuid_entry2 levels[] = {
        {.index = 0, .eax = 0, .ebx = 1, .ecx = 0 | TOPOLOGY_TYPE_SMT << 8},
        {.index = 1, .eax = core_bits, .ebx = count, .ecx = 1 | TOPOLOGY_TYPE_CORE << 8},
        {.index = 2, .eax = 0, .ebx = 0, .ecx = 2},
    };
    for (size_t i = 0; i < ARRAY_SIZE(levels) && cpuid->head.nent < CPU_X86_CPUID_MAX; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[cpuid->head.nent++];
        *entry = levels[i];
        entry->function = leaf;
        entry->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        entry->edx = index;
    }
}

static void set_bits(uint32_t *reg, unsigned shift, unsigned width, uint32_t value)
{
    uint32_t mask = ((1u << width) - 1) << shift;
    *reg = (*reg & ~mask) | (value << shift & mask);
}

/* The leaves that describe neighbours without naming a level. Caches are private to a core. */
static void set_neighbours(
    struct kvm_cpuid_entry2 *entry, uint32_t index, uint32_t count, uint32_t core_bits)
{
    switch (entry->function) {
    case LEAF_FEATURES:
        set_bits(&entry->ebx, 24, 8, index);
        set_bits(&entry->ebx, 16, 8, 1u << core_bits);
        entry->edx = count > 1 ? entry->edx | FEATURES_EDX_HTT : entry->edx & ~FEATURES_EDX_HTT;
        break;
    case LEAF_CACHES:
        set_bits(&entry->eax, 26, 6, (1u << core_bits) - 1);
        set_bits(&entry->eax, 14, 12, 0);
        break;
    case LEAF_AMD_SIZES:
        set_bits(&entry->ecx, 0, 8, count - 1);
        set_bits(&entry->ecx, 12, 4, core_bits);
        break;
    case LEAF_AMD_CACHES:
        set_bits(&entry->eax, 14, 12, 0);
        break;
    case LEAF_AMD_TOPOLOGY:
        entry->eax = index;
        entry->ebx = index & 0xff; /* core id; one thread per core */
        entry->ecx = 0;            /* one node */
        break;
    }
}

void cpu_x86_specialise(struct cpu_x86_cpuid *cpuid, uint32_t index, uint32_t count)
{
    uint32_t core_bits = 0;
    while ((1u << core_bits) < count)
        core_bits++;

    drop_leaf(cpuid, LEAF_TOPOLOGY_V2);
    drop_leaf(cpuid, LEAF_TOPOLOGY);
    for (uint32_t i = 0; i < cpuid->head.nent; i++)
        set_neighbours(&cpuid->entries[i], index, count, core_bits);
    add_topology(cpuid, LEAF_TOPOLOGY, index, count, core_bits);
}

int cpu_x86_set_default(int vcpu_fd, const struct cpu_x86_default *known, struct thaw_error *error)
{
    if (ioctl(vcpu_fd, KVM_SET_CPUID2, &known->given) < 0)
        return error_errno(error, errno, "setting the features of a vCPU");
    return 0;
}

int cpu_x86_try_default(int vcpu_fd, const struct cpu_x86_cpuid *template, uint32_t index,
    uint32_t count, struct cpu_x86_default *ret, struct thaw_error *error)
{
    ret->given = *template;
    cpu_x86_specialise(&ret->given, index, count);
    int r = cpu_x86_set_default(vcpu_fd, ret, error);
    memset(&ret->shown, 0, sizeof(ret->shown));
    return r < 0 ? r : cpu_x86_read(vcpu_fd, &ret->shown, error);
}

/* What follows from CR4, XCR0, XSS, APIC_BASE and MISC_ENABLE. */
static struct kvm_cpuid_entry2 without_registers(const struct kvm_cpuid_entry2 *entry)
{
    struct kvm_cpuid_entry2 rest = *entry;
    switch (entry->function) {
    case LEAF_FEATURES:
        rest.ecx &= ~(FEATURES_ECX_OSXSAVE | FEATURES_ECX_MONITOR);
        rest.edx &= ~FEATURES_EDX_APIC;
        break;
    case LEAF_MORE_FEATURES:
        if (entry->index == 0)
            rest.ecx &= ~MORE_FEATURES_ECX_OSPKE;
        break;
    case LEAF_XSTATE:
        if (entry->index <= 1)
            rest.ebx = 0;
        break;
    }
    return rest;
}

bool cpu_x86_same(
    const struct cpu_x86_cpuid *one, const struct kvm_cpuid_entry2 *other, uint32_t count)
{
    if (one->head.nent != count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct kvm_cpuid_entry2 a = without_registers(&one->entries[i]);
        struct kvm_cpuid_entry2 b = without_registers(&other[i]);
        if (memcmp(&a, &b, sizeof(a)) != 0)
            return false;
    }
    return true;
}

/* Leaves whose bits are features, in the registers named. */
static const struct {
    uint32_t leaf, subleaf;
    const char *regs;
} feature_words[] = {
    {LEAF_FEATURES, 0, "cd"},
    {0x7, 0, "bcd"},
    {0x7, 1, "abcd"},
    {0xd, 1, "a"},
    {LEAF_KVM_FEATURES, 0, "a"},
    {LEAF_AMD_FEATURES, 0, "cd"},
    {0x80000007u, 0, "d"},
    {LEAF_AMD_SIZES, 0, "b"},
};

/* Names of bits that people know; the rest is given by number. */
static const struct {
    uint32_t leaf;
    char reg;
    uint8_t bit;
    const char *name;
} feature_names[] = {
    {1, 'c', 0, "sse3"},
    {1, 'c', 9, "ssse3"},
    {1, 'c', 12, "fma"},
    {1, 'c', 13, "cx16"},
    {1, 'c', 17, "pcid"},
    {1, 'c', 19, "sse4.1"},
    {1, 'c', 20, "sse4.2"},
    {1, 'c', 21, "x2apic"},
    {1, 'c', 23, "popcnt"},
    {1, 'c', 24, "tsc-deadline"},
    {1, 'c', 25, "aes"},
    {1, 'c', 26, "xsave"},
    {1, 'c', 28, "avx"},
    {1, 'c', 29, "f16c"},
    {1, 'c', 30, "rdrand"},
    {7, 'b', 0, "fsgsbase"},
    {7, 'b', 3, "bmi1"},
    {7, 'b', 5, "avx2"},
    {7, 'b', 8, "bmi2"},
    {7, 'b', 9, "erms"},
    {7, 'b', 10, "invpcid"},
    {7, 'b', 16, "avx512f"},
    {7, 'b', 18, "rdseed"},
    {7, 'b', 19, "adx"},
    {7, 'b', 29, "sha"},
    {7, 'c', 9, "vaes"},
    {7, 'c', 22, "rdpid"},
    {7, 'd', 4, "fsrm"},
    {0xd, 'a', 0, "xsaveopt"},
    {0xd, 'a', 1, "xsavec"},
    {0xd, 'a', 3, "xsaves"},
    {0x80000001u, 'd', 26, "1g-pages"},
    {0x80000001u, 'd', 27, "rdtscp"},
};

static const struct kvm_cpuid_entry2 *find_leaf(
    const struct kvm_cpuid_entry2 *entries, uint32_t count, uint32_t leaf, uint32_t subleaf)
{
    for (uint32_t i = 0; i < count; i++)
        if (entries[i].function == leaf && entries[i].index == subleaf)
            return &entries[i];
    return NULL;
}

static uint32_t register_of(const struct kvm_cpuid_entry2 *entry, char reg)
{
    switch (reg) {
    case 'a':
        return entry->eax;
    case 'b':
        return entry->ebx;
    case 'c':
        return entry->ecx;
    default:
        return entry->edx;
    }
}

static void list_append(char *list, size_t bytes, const char *text)
{
    size_t used = strlen(list);
    snprintf(list + used, bytes - used, "%s%s", used ? ", " : "", text);
}

static void list_bits(
    uint32_t leaf, uint32_t subleaf, char reg, uint32_t bits, char *list, size_t bytes)
{
    for (; bits; bits &= bits - 1) {
        unsigned bit = (unsigned)__builtin_ctz(bits);
        char text[64];
        snprintf(text, sizeof(text), "cpuid 0x%x.%u e%cx bit %u", leaf, subleaf, reg, bit);
        for (size_t i = 0; i < ARRAY_SIZE(feature_names); i++)
            if (feature_names[i].leaf == leaf && feature_names[i].reg == reg &&
                feature_names[i].bit == bit && (subleaf == 0 || leaf == 0xd))
                snprintf(text, sizeof(text), "%s", feature_names[i].name);
        list_append(list, bytes, text);
    }
}

void cpu_x86_list_missing(const struct cpu_x86_cpuid *host, const struct kvm_cpuid_entry2 *entries,
    uint32_t count, char *list, size_t bytes)
{
    const struct kvm_cpuid_entry2 *theirs = find_leaf(entries, count, 0, 0);
    const struct kvm_cpuid_entry2 *ours = find_leaf(host->entries, host->head.nent, 0, 0);
    if (theirs && ours &&
        (theirs->ebx != ours->ebx || theirs->ecx != ours->ecx || theirs->edx != ours->edx))
        list_append(list, bytes, "a processor of the same vendor");
    for (size_t i = 0; i < ARRAY_SIZE(feature_words); i++) {
        uint32_t leaf = feature_words[i].leaf, subleaf = feature_words[i].subleaf;
        theirs = find_leaf(entries, count, leaf, subleaf);
        ours = find_leaf(host->entries, host->head.nent, leaf, subleaf);
        for (const char *reg = feature_words[i].regs; theirs && *reg; reg++) {
            uint32_t wanted = register_of(theirs, *reg);
            uint32_t have = ours ? register_of(ours, *reg) : 0;
            /* OSXSAVE and OSPKE show what the guest switched on; HTT what neighbours it has. */
            if (leaf == LEAF_FEATURES)
                have |= *reg == 'c' ? FEATURES_ECX_OSXSAVE : FEATURES_EDX_HTT;
            if (leaf == LEAF_MORE_FEATURES && *reg == 'c')
                have |= MORE_FEATURES_ECX_OSPKE;
            list_bits(leaf, subleaf, *reg, wanted & ~have, list, bytes);
        }
    }
}

static int set_segments(int vcpu_fd, const struct boot_entry *entry, struct thaw_error *error)
{
    struct kvm_sregs sregs;
    if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return error_errno(error, errno, "reading a new vCPU's system registers");

    /* boot.rst, 64-bit Boot Protocol: __BOOT_CS 0x10 and __BOOT_DS 0x18, flat, CS 64-bit. */
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = 0x10, .type = 0xb, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 0x18, .type = 0x3, .present = 1, .s = 1, .db = 1, .g = 1};
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt.base = entry->gdt_gpa;
    sregs.gdt.limit = entry->gdt_limit;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr3 = entry->cr3;
    sregs.cr4 = CR4_PAE;
    sregs.cr0 = CR0_PE_ET_NE_PG;
    sregs.efer = EFER_LME_LMA;
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0)
        return error_errno(error, errno, "putting the boot vCPU into long mode");
    return 0;
}

/* NMI is LINT1, as firmware leaves it. LINT0, where the PIC arrives, is masked: no one initialises
 * KVM's PIC, whose vector base is 0, so that a device interrupt would come as an exception. */
static int set_lapic_pins(int vcpu_fd, struct thaw_error *error)
{
    struct kvm_lapic_state lapic;
    if (ioctl(vcpu_fd, KVM_GET_LAPIC, &lapic) < 0)
        return error_errno(error, errno, "reading the boot vCPU's local APIC");
    const uint32_t lint0 = APIC_MASKED | APIC_DELIVERY_EXTINT, lint1 = APIC_DELIVERY_NMI;
    memcpy(&lapic.regs[APIC_LVT_LINT0], &lint0, sizeof(lint0));
    memcpy(&lapic.regs[APIC_LVT_LINT1], &lint1, sizeof(lint1));
    if (ioctl(vcpu_fd, KVM_SET_LAPIC, &lapic) < 0)
        return error_errno(error, errno, "setting the boot vCPU's local APIC");
    return 0;
}

/* How many bits a physical address has, according to the vCPU's own CPUID; or -errno. */
static int physical_bits(int vcpu_fd, struct thaw_error *error)
{
    struct cpu_x86_cpuid cpuid = {.head.nent = CPU_X86_CPUID_MAX};
    if (ioctl(vcpu_fd, KVM_GET_CPUID2, &cpuid) < 0)
        return error_errno(error, errno, "reading the features of the boot vCPU");
    for (uint32_t i = 0; i < cpuid.head.nent; i++)
        if (cpuid.entries[i].function == LEAF_AMD_SIZES)
            return cpuid.entries[i].eax & 0xff;
    return PHYSICAL_BITS_DEFAULT;
}

/* As firmware leaves it: memory is write-back, the hole for devices uncached. Without the latter
 * Linux maps what AML reads there (a virtio slot's registers) write-back, and then refuses the
 * driver's uncached mapping of the same page. */
static int set_memory_type(int vcpu_fd, struct thaw_error *error)
{
    int bits = physical_bits(vcpu_fd, error);
    if (bits < 0)
        return bits;
    const uint64_t address_mask = (1ull << bits) - 1;
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[3];
    } msrs = {
        .head.nmsrs = ARRAY_SIZE(msrs.entries),
        .entries =
            {
                {.index = MSR_MTRR_PHYS_BASE0, .data = MEM_HOLE_GPA | MTRR_UNCACHED},
                {.index = MSR_MTRR_PHYS_MASK0,
                    .data = (address_mask & ~(MEM_HIGH_GPA - MEM_HOLE_GPA - 1)) | MTRR_VALID},
                {.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED_WB},
            },
    };
    if (ioctl(vcpu_fd, KVM_SET_MSRS, &msrs) != (int)ARRAY_SIZE(msrs.entries))
        return error_set(error, THAW_EHOST, "KVM does not let the memory type be set");
    return 0;
}

int cpu_x86_set_firmware_state(int vcpu_fd, struct thaw_error *error)
{
    int r = set_lapic_pins(vcpu_fd, error);
    return r < 0 ? r : set_memory_type(vcpu_fd, error);
}

int cpu_x86_set_boot_state(int vcpu_fd, const struct boot_entry *entry, struct thaw_error *error)
{
    int r = set_segments(vcpu_fd, entry, error);
    if (r < 0)
        return r;
    struct kvm_regs regs = {.rip = entry->rip, .rsi = entry->rsi, .rflags = 2};
    if (ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return error_errno(error, errno, "setting the boot vCPU's registers");
    return 0;
}
