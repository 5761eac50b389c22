// SPDX-License-Identifier: Apache-2.0
// Reads and sets what KVM holds of a VM: the one file that knows the order. Stores nothing.
//
// Ordering requirements
//
// Saving. All vCPUs are parked, with no I/O instruction half done, and devices are drained (a late
// completion would raise an interrupt after the controllers were read). What the PIT still sends
// does not depend on the order of controllers and vCPUs: a timer that is set anew fires anew.
//   clock         one instant for all: the vCPUs' TSCs are computed for it
//   MP_STATE      before all else of a vCPU: reading it makes KVM process pending INIT and SIPI,
//                 which changes the registers
//   LAPIC         before the registers that KVM left behind when the vCPU left the guest: it tells
//                 whether there has been an INIT since
//   VCPU_EVENTS   last of a vCPU: reading other state may still move events. Those that KVM left
//                 behind are as good where nobody can have sent an NMI since: reading moves no
//                 others
// Guest memory is collected once vCPUs have left the guest and devices were saved, which may both
// write to it. Reading the rest does not.
//
// Restoring, into vCPUs that never ran. What such a vCPU is known to have already is not set.
//   CPUID         first: it decides which registers and MSRs exist, and XSAVE's layout. A new vCPU
//                 has this host's, which most snapshots want
//   TSC_KHZ       before anything that is measured in TSC ticks, and only if it differs
//   MP_STATE      before the registers: setting it resets some of them
//   REGS          before VCPU_EVENTS, since it clears pending exceptions
//   SREGS         before LAPIC: it carries the APIC base and mode
//   XCRS          before XSAVE: XCR0 says which components there are
//   LAPIC         before MSRs: TSC_DEADLINE is dropped unless the timer is in that mode
//   TSC           before TSC_DEADLINE, which is compared with it. Where it stays the host's, too,
//                 if there are several: KVM looks whether they were all set to the same
//   MSRs          TSC_DEADLINE last
//   VCPU_EVENTS   after all that could clear them
//   PIT, clock, PICs, IOAPIC   after the vCPUs; SET_CLOCK after a vCPU has run hangs guests. The
//                 clock goes on from the instant that the TSCs were set for
//
// Restoring again, into vCPUs that ran but are parked: the same, with less and more.
//   CPUID, TSC_KHZ   have not changed, since no guest can; KVM forbids setting them again
//   MP_STATE      is read first: INIT and SIPI that were on their way are then processed, and what
//                 they do is overwritten instead of overwriting. What it is already is not set:
//                 then a paravirtual kick may be left, which wakes a halt once too often
//   SREGS         twice, with CR0.TS the other way round first: translations that a vCPU has cached
//                 outlive an exchange of the page tables' bytes, and KVM drops them only if a
//                 control register changes
//   LAPIC         twice, the first time without a count: where its timer changes from the deadline
//                 mode to another, KVM forgets the count that it was just given
//   clock         may be set after all, since no vCPU sees it move
//
// Device interrupt lines are driven again after that, or the controllers' state would undo them.

#include "kvm_msrs.h"
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <x86intrin.h>

#define CR0_TS             0x8u
#define CR0_PG             0x80000000u
#define CR4_PAE            0x20u
#define EFER_LMA           0x400u
#define APIC_BASE_ENABLED  0x800u /* else interrupts of the PICs come past it */
#define LAPIC_SPURIOUS     0xf0u
#define LAPIC_ENABLED      0x100u /* by software, in the spurious interrupt vector register */
#define LAPIC_LVT_TIMER    0x320u
#define LAPIC_LVT_LINT0    0x350u
#define LAPIC_LVT_LINT1    0x360u
#define LAPIC_MASKED       0x10000u
#define LAPIC_DELIVERY     0x700u
#define LAPIC_DELIVERY_NMI 0x400u
#define LAPIC_DEADLINE     0x40000u /* the timer's mode, in its LVT */
#define LAPIC_TIMER_COUNT  0x380u
#define TSC_TOLERANCE_PPM  250u
#define CLOCK_TRIES        16u

/* Where the guest keeps a clock, and whether it does, in bit 0
 * (Documentation/virt/kvm/x86/msr.rst).
 */
#define MSR_KVMCLOCK_OLD 0x12u
#define MSR_KVMCLOCK     0x4b564d01u

uint64_t host_tsc(void)
{
    return __rdtsc();
}

static int failed(const char *what, struct thaw_error *error)
{
    return error_errno(error, errno, "%s", what);
}

/* --- Time ------------------------------------------------------------------------------------- */

static struct kvm_device_attr tsc_offset_attr(uint64_t *value)
{
    return (struct kvm_device_attr){
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)value};
}

/* A time on the guest's clock, and the host's TSC then: one number where KVM says which, which it
 * does not where it is old or does not go by the TSC; else two that it lies between. */
struct clock_reading {
    uint64_t ns;
    uint64_t tsc_min, tsc_max;
};

static int read_clock(int vm_fd, struct clock_reading *ret, struct thaw_error *error)
{
    struct kvm_clock_data data = {0};
    ret->tsc_min = host_tsc();
    if (ioctl(vm_fd, KVM_GET_CLOCK, &data) < 0)
        return failed("reading the guest's clock", error);
    ret->tsc_max = host_tsc();
    ret->ns = data.clock;
    if (data.flags & KVM_CLOCK_HOST_TSC)
        ret->tsc_min = ret->tsc_max = data.host_tsc;
    return 0;
}

int vm_clock_save(int vm_fd, uint32_t host_khz, struct vm_clock *ret, struct thaw_error *error)
{
    struct timespec real;
    struct clock_reading reading = {0};
    int r = read_clock(vm_fd, &reading, error);
    if (r < 0)
        return r;
    clock_gettime(CLOCK_REALTIME, &real);
    ret->host_khz = host_khz;
    ret->kvmclock_ns = reading.ns;
    ret->host_tsc = reading.tsc_min; /* rather ahead of the TSC than behind */
    ret->realtime_ns = (uint64_t)real.tv_sec * 1000000000u + (uint64_t)real.tv_nsec;
    return 0;
}

int vcpu_read_tsc_khz(int vcpu_fd, uint32_t *ret_khz, struct thaw_error *error)
{
    int khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);
    if (khz < 0)
        return failed("reading a vCPU's TSC frequency", error);
    if (khz == 0)
        return error_set(error, THAW_EHOST, "KVM doesn't know this host's TSC frequency");
    *ret_khz = (uint32_t)khz;
    return 0;
}

static bool is_near(uint32_t khz, uint32_t wanted)
{
    uint64_t difference = (uint64_t)llabs((long long)khz - (long long)wanted);
    return difference * 1000000u <= (uint64_t)wanted * TSC_TOLERANCE_PPM;
}

uint64_t tsc_scale(uint64_t host_tsc_then, uint32_t host_khz, uint32_t guest_khz)
{
    if (is_near(host_khz, guest_khz))
        return host_tsc_then;
    return (uint64_t)((unsigned __int128)host_tsc_then * guest_khz / host_khz);
}

static int save_tsc(
    int vcpu_fd, const struct vcpu_fixed *fixed, struct vcpu_state *ret, struct thaw_error *error)
{
    ret->tsc_khz = fixed->tsc_khz;
    int r = ret->tsc_khz ? 0 : vcpu_read_tsc_khz(vcpu_fd, &ret->tsc_khz, error);
    ret->tsc = 0;
    if (r < 0 || fixed->tsc_stays)
        return r;
    struct kvm_device_attr attr = tsc_offset_attr(&ret->tsc);
    if (ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attr) < 0)
        return failed("reading a vCPU's TSC offset", error);
    return 0;
}

/* The guest's TSC is the host's, scaled if need be, plus an offset: computed that way, all vCPUs
 * show the same instant however long after each other they were read. */
void vcpu_state_set_instant(struct vcpu_state *state, const struct vm_clock *clock)
{
    state->tsc += tsc_scale(clock->host_tsc, clock->host_khz, state->tsc_khz);
}

static int restore_tsc_khz(
    const struct kvm *kvm, int vcpu_fd, uint32_t khz, uint32_t wanted, struct thaw_error *error)
{
    if (is_near(khz, wanted))
        return 0;
    if (!kvm->tsc_scaling)
        return error_set(error, THAW_EHOST,
            "the guest's TSC runs at %u kHz, this host's at %u kHz, and it cannot scale", wanted,
            khz);
    if (ioctl(vcpu_fd, KVM_SET_TSC_KHZ, (unsigned long)wanted) < 0)
        return failed("setting a vCPU's TSC frequency", error);
    return 0;
}

int vcpu_try_tsc_offset(int vcpu_fd, bool *ret_keeps, struct thaw_error *error)
{
    uint64_t offset, tried, kept;
    struct kvm_device_attr attr = tsc_offset_attr(&offset), tried_attr = tsc_offset_attr(&tried),
                           kept_attr = tsc_offset_attr(&kept);
    if (ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attr) < 0)
        return failed("reading a vCPU's TSC offset", error);
    tried = offset + 1000000;
    if (ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &tried_attr) < 0)
        return failed("setting a vCPU's TSC", error);
    if (ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &kept_attr) < 0)
        return failed("reading a vCPU's TSC offset", error);
    if (ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attr) < 0)
        return failed("setting a vCPU's TSC", error);
    *ret_keeps = kept == tried;
    return 0;
}

int vcpu_share_tsc_offset(int vcpu_fd, int from_fd, struct thaw_error *error)
{
    uint64_t offset;
    struct kvm_device_attr attr = tsc_offset_attr(&offset);
    if (ioctl(from_fd, KVM_GET_DEVICE_ATTR, &attr) < 0)
        return failed("reading a vCPU's TSC offset", error);
    if (ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attr) < 0)
        return failed("setting a vCPU's TSC", error);
    return 0;
}

static int restore_tsc(int vcpu_fd, const struct vcpu_state *state, const struct tsc_start *start,
    struct thaw_error *error)
{
    uint64_t offset = state->tsc + start->advance - start->scaled_now;
    if (start->leave)
        return 0;
    struct kvm_device_attr attr = tsc_offset_attr(&offset);
    if (ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attr) < 0)
        return failed("setting a vCPU's TSC", error);
    return 0;
}

/* What the clock is to show when the host's TSC is that. */
static uint64_t clock_at(const struct clock_start *start, uint64_t tsc)
{
    bool scaled = !is_near(start->host_khz, start->tsc_khz);
    uint32_t khz = scaled ? start->host_khz : start->tsc_khz;
    uint64_t ticks = tsc > start->host_tsc ? tsc - start->host_tsc : 0;
    return start->kvmclock_ns + (uint64_t)((unsigned __int128)ticks * 1000000u / khz);
}

/* No flags: with a host time in it, KVM would add what has passed since. */
static int set_clock(int vm_fd, uint64_t ns, struct thaw_error *error)
{
    struct kvm_clock_data data = {.clock = ns};
    return ioctl(vm_fd, KVM_SET_CLOCK, &data) < 0 ? failed("setting the guest's clock", error) : 0;
}

/* KVM tells each vCPU how to get from the TSC to the time when that vCPU first runs; but a guest's
 * user space goes by what its first CPU was told. Another CPU that runs earlier finds there what
 * was true before, and if the clock had lost time against the TSC since, time would then go back;
 * if it had gained, the guest's kernel, which goes by its own CPU, would be ahead of user space.
 * KVM takes the clock without a TSC, and what passes until it does so is lost: hence it is looked
 * how far off the clock is, and set again until it is ahead by as little as this host allows. */
int vm_clock_restore(int vm_fd, const struct clock_start *start, struct thaw_error *error)
{
    struct clock_reading reading = {0};
    uint64_t correction_ns = 0;
    if (start->one_cpu)
        return set_clock(vm_fd, clock_at(start, host_tsc()), error);
    for (unsigned i = 0; i < CLOCK_TRIES; i++) {
        int64_t aim_ns = (int64_t)1000 << i;
        int r = set_clock(vm_fd, clock_at(start, host_tsc()) + correction_ns, error);
        if (r == 0)
            r = read_clock(vm_fd, &reading, error);
        if (r < 0)
            return r;
        int64_t ahead_ns = (int64_t)(reading.ns - clock_at(start, reading.tsc_max));
        if (ahead_ns > 0 && ahead_ns <= 4 * aim_ns)
            return 0;
        correction_ns += (uint64_t)(aim_ns - ahead_ns);
    }
    return error_set(error, THAW_EHOST,
        "the guest's clock can't be set: KVM's and the TSC are never the same for long");
}

bool vcpu_state_has_kvmclock(const struct vcpu_state *state)
{
    for (uint32_t i = 0; i < state->msr_count; i++)
        if ((state->msrs[i].index == MSR_KVMCLOCK || state->msrs[i].index == MSR_KVMCLOCK_OLD) &&
            (state->msrs[i].data & 1))
            return true;
    return false;
}

void vcpu_state_note_pause(int vcpu_fd)
{
    (void)ioctl(vcpu_fd, KVM_KVMCLOCK_CTRL, 0);
}

/* --- Processors ------------------------------------------------------------------------------- */

static uint32_t lapic_register(const struct kvm_lapic_state *lapic, unsigned offset)
{
    uint32_t value;
    memcpy(&value, lapic->regs + offset, sizeof(value));
    return value;
}

static int save_xsave(
    const struct kvm *kvm, int vcpu_fd, struct vcpu_state *ret, struct thaw_error *error)
{
    int bytes = kvm->xsave_bytes;
    if (bytes > VCPU_STATE_XSAVE_MAX)
        return error_set(error, THAW_EHOST, "this host's vector state has %d bytes, more than %d",
            bytes, VCPU_STATE_XSAVE_MAX);
    bool larger = bytes > (int)sizeof(struct kvm_xsave);
    ret->xsave_bytes = (uint32_t)bytes;
    if (ioctl(vcpu_fd, larger ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, ret->xsave) < 0)
        return failed("reading a vCPU's vector state", error);
    return 0;
}

/* KVM takes as many bytes as it has itself, so a larger state fits only a host that has it all. */
static int restore_xsave(
    const struct kvm *kvm, int vcpu_fd, const struct vcpu_state *state, struct thaw_error *error)
{
    int bytes = kvm->xsave_bytes;
    if (state->xsave_bytes > (uint32_t)bytes || bytes > VCPU_STATE_XSAVE_MAX)
        return error_set(error, THAW_EHOST,
            "the guest has %u bytes of vector state, this host's KVM takes %d", state->xsave_bytes,
            bytes);
    if (ioctl(vcpu_fd, KVM_SET_XSAVE, state->xsave) < 0)
        return failed("setting a vCPU's vector state", error);
    return 0;
}

/* The members that both forms of the system registers have. */
#define SREGS_BOTH(from)                                                                           \
    .cs = (from)->cs, .ds = (from)->ds, .es = (from)->es, .fs = (from)->fs, .gs = (from)->gs,      \
    .ss = (from)->ss, .tr = (from)->tr, .ldt = (from)->ldt, .gdt = (from)->gdt,                    \
    .idt = (from)->idt, .cr0 = (from)->cr0, .cr2 = (from)->cr2, .cr3 = (from)->cr3,                \
    .cr4 = (from)->cr4, .cr8 = (from)->cr8, .efer = (from)->efer, .apic_base = (from)->apic_base

/* The older call lacks the PAE page directory pointers, which KVM then loads from guest memory. The
 * interrupt bitmap, which the newer one lacks, is in the events. */
static int save_sregs(
    const struct kvm *kvm, int vcpu_fd, struct vcpu_state *ret, struct thaw_error *error)
{
    if (kvm->sregs2) {
        if (ioctl(vcpu_fd, KVM_GET_SREGS2, &ret->sregs) < 0)
            return failed("reading a vCPU's system registers", error);
        return 0;
    }
    struct kvm_sregs sregs;
    if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return failed("reading a vCPU's system registers", error);
    ret->sregs = (struct kvm_sregs2){SREGS_BOTH(&sregs)};
    return 0;
}

static int restore_sregs(const struct kvm *kvm, int vcpu_fd, const struct vcpu_state *state,
    uint64_t cr0_flip, struct thaw_error *error)
{
    struct kvm_sregs2 wide = state->sregs;
    wide.cr0 ^= cr0_flip;
    struct kvm_sregs narrow = {SREGS_BOTH(&wide)};
    int r = kvm->sregs2 ? ioctl(vcpu_fd, KVM_SET_SREGS2, &wide)
                        : ioctl(vcpu_fd, KVM_SET_SREGS, &narrow);
    return r < 0 ? failed("setting a vCPU's system registers", error) : 0;
}

int vcpu_fixed_init(struct vcpu_fixed *fixed, uint32_t tsc_khz,
    const struct kvm_cpuid_entry2 *cpuid, uint32_t cpuid_count, struct thaw_error *error)
{
    *fixed = (struct vcpu_fixed){.tsc_khz = tsc_khz, .cpuid_count = cpuid_count};
    fixed->cpuid = malloc(cpuid_count * sizeof(*cpuid));
    if (!fixed->cpuid)
        return error_errno(error, ENOMEM, "allocating CPUID tables");
    memcpy(fixed->cpuid, cpuid, cpuid_count * sizeof(*cpuid));
    return 0;
}

void vcpu_fixed_fini(struct vcpu_fixed *fixed)
{
    free(fixed->cpuid);
    *fixed = (struct vcpu_fixed){0};
}

static int save_cpuid(
    int vcpu_fd, const struct vcpu_fixed *fixed, struct vcpu_state *ret, struct thaw_error *error)
{
    if (fixed->cpuid) {
        ret->cpuid_count = fixed->cpuid_count;
        memcpy(ret->cpuid, fixed->cpuid, ret->cpuid_count * sizeof(ret->cpuid[0]));
        return 0;
    }
    struct cpu_x86_cpuid *cpuid _cleanup_free_ = calloc(1, sizeof(*cpuid));
    if (!cpuid)
        return error_errno(error, ENOMEM, "allocating CPUID tables");
    int r = cpu_x86_read(vcpu_fd, cpuid, error);
    if (r < 0)
        return r;
    ret->cpuid_count = cpuid->head.nent;
    memcpy(ret->cpuid, cpuid->entries, ret->cpuid_count * sizeof(ret->cpuid[0]));
    return 0;
}

static int set_cpuid(int vcpu_fd, const struct vcpu_state *state, struct thaw_error *error)
{
    struct cpu_x86_cpuid *cpuid _cleanup_free_ = calloc(1, sizeof(*cpuid));
    if (!cpuid)
        return error_errno(error, ENOMEM, "allocating CPUID tables");
    cpuid->head.nent = state->cpuid_count;
    memcpy(cpuid->entries, state->cpuid, state->cpuid_count * sizeof(cpuid->entries[0]));
    if (ioctl(vcpu_fd, KVM_SET_CPUID2, cpuid) < 0)
        return failed("setting a vCPU's features", error);
    return 0;
}

/* One ioctl of a table: they differ in nothing but number, place and name. */
struct step {
    unsigned long request;
    size_t offset, bytes;
    const char *what;
};

#define STEP(request, member, what)                                                                \
    {                                                                                              \
        request, offsetof(struct vcpu_state, member), sizeof(((struct vcpu_state *)0)->member),    \
            what                                                                                   \
    }

static int run_step(
    int vcpu_fd, const struct step *step, struct vcpu_state *state, struct thaw_error *error)
{
    if (ioctl(vcpu_fd, step->request, (char *)state + step->offset) < 0)
        return failed(step->what, error);
    return 0;
}

/* An INIT disables the local APIC and masks its lines (SDM volume 3, "Local APIC State After an
 * INIT Reset"), and until the vCPU runs nothing changes that. Who finds it otherwise knows that
 * none was processed, nor a SIPI, which needs an INIT before it. Firmware leaves a line unmasked, a
 * kernel enables it. */
static bool may_be_after_init(const struct kvm_lapic_state *lapic)
{
    return !(lapic_register(lapic, LAPIC_SPURIOUS) & LAPIC_ENABLED) &&
           (lapic_register(lapic, LAPIC_LVT_LINT1) & LAPIC_MASKED);
}

/* PAE paging without long mode: then there are page directory pointers, which only the newer call
 * has. */
static bool has_pointers(const struct kvm_sregs *sregs)
{
    return (sregs->cr0 & CR0_PG) && (sregs->cr4 & CR4_PAE) && !(sregs->efer & EFER_LMA);
}

/* Whether the timer's line leads to an NMI, as a watchdog of old kernels has it. */
static bool has_timer_nmi(const struct kvm_lapic_state *lapic)
{
    uint32_t line = lapic_register(lapic, LAPIC_LVT_LINT0);
    return !(line & LAPIC_MASKED) && (line & LAPIC_DELIVERY) == LAPIC_DELIVERY_NMI;
}

/* Behind the local APIC. */
static int save_registers(const struct kvm *kvm, int vcpu_fd, const struct kvm_sync_regs *left,
    struct vcpu_state *ret, struct thaw_error *error)
{
    static const struct step regs = STEP(KVM_GET_REGS, regs, "reading a vCPU's registers");
    int r = 0;
    if (left)
        ret->regs = left->regs;
    else
        r = run_step(vcpu_fd, &regs, ret, error);
    if (left && !(kvm->sregs2 && has_pointers(&left->sregs)))
        ret->sregs = (struct kvm_sregs2){SREGS_BOTH(&left->sregs)};
    else if (r == 0)
        r = save_sregs(kvm, vcpu_fd, ret, error);
    return r;
}

int vcpu_state_save(const struct kvm *kvm, int vcpu_fd, const struct kvm_sync_regs *left,
    bool alone, const struct msr_list *msrs, const struct vcpu_fixed *fixed, struct vcpu_state *ret,
    struct thaw_error *error)
{
    static const struct step first = STEP(KVM_GET_MP_STATE, mp_state, "reading a vCPU's run state");
    static const struct step middle[] = {
        STEP(KVM_GET_DEBUGREGS, debugregs, "reading a vCPU's debug registers"),
        STEP(KVM_GET_LAPIC, lapic, "reading a vCPU's local APIC"),
    };
    static const struct step xcrs =
        STEP(KVM_GET_XCRS, xcrs, "reading a vCPU's extended control registers");
    static const struct step last = STEP(KVM_GET_VCPU_EVENTS, events, "reading a vCPU's events");

    int r = run_step(vcpu_fd, &first, ret, error);
    for (size_t i = 0; i < ARRAY_SIZE(middle) && r == 0; i++)
        r = run_step(vcpu_fd, &middle[i], ret, error);
    if (left && may_be_after_init(&ret->lapic))
        left = NULL;
    if (r == 0)
        r = save_registers(kvm, vcpu_fd, left, ret, error);
    if (r == 0)
        r = save_xsave(kvm, vcpu_fd, ret, error);
    if (r == 0 && kvm->xcrs)
        r = run_step(vcpu_fd, &xcrs, ret, error);
    if (r == 0)
        r = save_cpuid(vcpu_fd, fixed, ret, error);
    if (r == 0)
        r = save_tsc(vcpu_fd, fixed, ret, error);
    if (r == 0)
        r = msrs_save(vcpu_fd, msrs, ret, error);
    if (r < 0)
        return r;
    /* Since it left the guest, only another vCPU or the timer can have sent it an NMI. */
    if (!left || !alone || has_timer_nmi(&ret->lapic))
        return run_step(vcpu_fd, &last, ret, error);
    ret->events = left->events;
    return 0;
}

/* The same, unless the vCPU is known to have that already. */
static int run_step_if_new(int vcpu_fd, const struct step *step, struct vcpu_state *state,
    const struct vcpu_state *known, struct thaw_error *error)
{
    const char *wanted = (const char *)state + step->offset;
    if (known && memcmp(wanted, (const char *)known + step->offset, step->bytes) == 0)
        return 0;
    return run_step(vcpu_fd, step, state, error);
}

static bool has_xsave(const struct vcpu_state *known, const struct vcpu_state *state)
{
    return known && known->xsave_bytes == state->xsave_bytes &&
           memcmp(known->xsave, state->xsave, state->xsave_bytes) == 0;
}

/* In another mode the same bytes mean something else. */
static const struct vcpu_state *known_lapic(
    const struct vcpu_state *known, const struct vcpu_state *state)
{
    return known && known->sregs.apic_base == state->sregs.apic_base ? known : NULL;
}

/* NULL: it may have any. */
static int set_mp_state(int vcpu_fd, const struct vcpu_state *state, const struct kvm_mp_state *has,
    struct thaw_error *error)
{
    if (has && has->mp_state == state->mp_state.mp_state)
        return 0;
    struct kvm_mp_state copy = state->mp_state;
    if (ioctl(vcpu_fd, KVM_SET_MP_STATE, &copy) < 0)
        return failed("setting a vCPU's run state", error);
    return 0;
}

static int restore_registers(const struct kvm *kvm, int vcpu_fd, struct vcpu_state *state,
    const struct vcpu_state *known, struct thaw_error *error)
{
    static const struct step regs = STEP(KVM_SET_REGS, regs, "setting a vCPU's registers");
    static const struct step xcrs =
        STEP(KVM_SET_XCRS, xcrs, "setting a vCPU's extended control registers");
    static const struct step debugregs =
        STEP(KVM_SET_DEBUGREGS, debugregs, "setting a vCPU's debug registers");
    static const struct step lapic = STEP(KVM_SET_LAPIC, lapic, "setting a vCPU's local APIC");

    int r = run_step(vcpu_fd, &regs, state, error);
    if (r == 0)
        r = restore_sregs(kvm, vcpu_fd, state, 0, error);
    if (r == 0 && state->xcrs.nr_xcrs > 0)
        r = run_step_if_new(vcpu_fd, &xcrs, state, known, error);
    if (r == 0 && !has_xsave(known, state))
        r = restore_xsave(kvm, vcpu_fd, state, error);
    if (r == 0)
        r = run_step_if_new(vcpu_fd, &debugregs, state, known, error);
    return r < 0 ? r : run_step_if_new(vcpu_fd, &lapic, state, known_lapic(known, state), error);
}

/* All but what a vCPU is, and whether it runs. known: what it has already; NULL: it may have
 * anything. */
static int restore_contents(const struct kvm *kvm, int vcpu_fd, const struct vcpu_state *known,
    const struct vcpu_state *state, const struct tsc_start *tsc, struct thaw_error *error)
{
    static const struct step events = STEP(KVM_SET_VCPU_EVENTS, events, "setting a vCPU's events");
    /* KVM only reads through these pointers, though its calls don't say so. */
    struct vcpu_state *source = (struct vcpu_state *)(uintptr_t)state;

    int r = restore_registers(kvm, vcpu_fd, source, known, error);
    if (r == 0)
        r = restore_tsc(vcpu_fd, state, tsc, error);
    if (r == 0)
        r = msrs_restore(vcpu_fd, state, known, error);
    return r < 0 ? r : run_step_if_new(vcpu_fd, &events, source, known, error);
}

int vcpu_state_restore(const struct kvm *kvm, int vcpu_fd, const struct vcpu_fresh *fresh,
    const struct vcpu_state *state, const struct tsc_start *tsc, struct thaw_error *error)
{
    bool same_cpuid = cpu_x86_same(fresh->cpuid, state->cpuid, state->cpuid_count);
    int r = same_cpuid ? 0 : set_cpuid(vcpu_fd, state, error);
    if (r == 0)
        r = restore_tsc_khz(kvm, vcpu_fd, fresh->tsc_khz, state->tsc_khz, error);
    const struct vcpu_state *known = same_cpuid ? fresh->state : NULL;
    if (r == 0)
        r = set_mp_state(vcpu_fd, state, known ? &known->mp_state : NULL, error);
    return r < 0 ? r : restore_contents(kvm, vcpu_fd, known, state, tsc, error);
}

bool lapic_masks_pic(const struct vcpu_state *state)
{
    return (state->sregs.apic_base & APIC_BASE_ENABLED) &&
           (lapic_register(&state->lapic, LAPIC_LVT_LINT0) & LAPIC_MASKED);
}

static int change_timer_mode(int vcpu_fd, const struct vcpu_state *state, struct thaw_error *error)
{
    if (lapic_register(&state->lapic, LAPIC_TIMER_COUNT) == 0 ||
        (lapic_register(&state->lapic, LAPIC_LVT_TIMER) & LAPIC_DEADLINE))
        return 0;
    struct kvm_lapic_state stopped = state->lapic;
    memset(stopped.regs + LAPIC_TIMER_COUNT, 0, sizeof(uint32_t));
    if (ioctl(vcpu_fd, KVM_SET_LAPIC, &stopped) < 0)
        return failed("stopping a vCPU's timer", error);
    return 0;
}

int vcpu_state_reset(const struct kvm *kvm, int vcpu_fd, const struct vcpu_state *state,
    const struct tsc_start *tsc, struct thaw_error *error)
{
    struct kvm_mp_state now;
    if (ioctl(vcpu_fd, KVM_GET_MP_STATE, &now) < 0)
        return failed("reading a vCPU's run state", error);
    int r = set_mp_state(vcpu_fd, state, &now, error);
    if (r == 0)
        r = restore_sregs(kvm, vcpu_fd, state, CR0_TS, error);
    if (r == 0)
        r = change_timer_mode(vcpu_fd, state, error);
    return r < 0 ? r : restore_contents(kvm, vcpu_fd, NULL, state, tsc, error);
}

/* --- Interrupt controllers and timer ---------------------------------------------------------- */

int vm_chips_save(int vm_fd, struct vm_chips *ret, struct thaw_error *error)
{
    *ret = (struct vm_chips){
        .pic_master.chip_id = KVM_IRQCHIP_PIC_MASTER,
        .pic_slave.chip_id = KVM_IRQCHIP_PIC_SLAVE,
        .ioapic.chip_id = KVM_IRQCHIP_IOAPIC,
    };
    if (ioctl(vm_fd, KVM_GET_PIT2, &ret->pit) < 0)
        return failed("reading the timer", error);
    struct kvm_irqchip *chips[] = {&ret->pic_master, &ret->pic_slave, &ret->ioapic};
    for (size_t i = 0; i < ARRAY_SIZE(chips); i++)
        if (ioctl(vm_fd, KVM_GET_IRQCHIP, chips[i]) < 0)
            return failed("reading the interrupt controllers", error);
    return 0;
}

/* When a channel was loaded is always another time, and KVM sets it anew. */
static bool is_same_pit(struct kvm_pit_state2 a, struct kvm_pit_state2 b)
{
    for (size_t i = 0; i < ARRAY_SIZE(a.channels); i++)
        a.channels[i].count_load_time = b.channels[i].count_load_time = 0;
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static int set_chip(int vm_fd, uint32_t id, const struct kvm_irqchip *chip,
    const struct kvm_irqchip *known, struct thaw_error *error)
{
    size_t bytes = id == KVM_IRQCHIP_IOAPIC ? sizeof(chip->chip.ioapic) : sizeof(chip->chip.pic);
    if (known && memcmp(&chip->chip, &known->chip, bytes) == 0)
        return 0;
    struct kvm_irqchip copy = *chip;
    copy.chip_id = id;
    if (ioctl(vm_fd, KVM_SET_IRQCHIP, &copy) < 0)
        return failed("setting the interrupt controllers", error);
    return 0;
}

int vm_chips_restore(int vm_fd, const struct vm_chips *state, const struct vm_chips *known,
    const struct clock_start *clock, struct thaw_error *error)
{
    struct kvm_pit_state2 pit = state->pit;
    if (!(known && is_same_pit(pit, known->pit)) && ioctl(vm_fd, KVM_SET_PIT2, &pit) < 0)
        return failed("setting the timer", error);
    int r = vm_clock_restore(vm_fd, clock, error);
    if (r == 0)
        r = set_chip(vm_fd, KVM_IRQCHIP_PIC_MASTER, &state->pic_master,
            known ? &known->pic_master : NULL, error);
    if (r == 0)
        r = set_chip(vm_fd, KVM_IRQCHIP_PIC_SLAVE, &state->pic_slave,
            known ? &known->pic_slave : NULL, error);
    if (r == 0)
        r = set_chip(
            vm_fd, KVM_IRQCHIP_IOAPIC, &state->ioapic, known ? &known->ioapic : NULL, error);
    return r;
}
