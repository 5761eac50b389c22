// SPDX-License-Identifier: Apache-2.0
// A guest's state moves from one VM to another in the same process, memory by plain copy: what is
// tested is that the state is whole.
#include "dirty.h"
#include "guest.h"
#include "pagemap.h"
#include "timing.h"
#include "vm_state.h"
#include <criterion/criterion.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static struct guest source;
static struct guest target; /* its console; its VM is made by hand */

/* What is known of what the target has before its state is set. */
static enum {
    KNOWN_NOTHING,
    KNOWN_NEW,      /* a VM was made before */
    KNOWN_PREPARED, /* as in a pool */
    KNOWN_END,
} known;
static struct fresh prepared;

static void keep(void *data, const char *bytes, size_t count)
{
    (void)data;
    pthread_mutex_lock(&target.lock);
    if (target.console_count + count < sizeof(target.console)) {
        memcpy(target.console + target.console_count, bytes, count);
        target.console_count += count;
    }
    pthread_cond_broadcast(&target.more);
    pthread_mutex_unlock(&target.lock);
}

static struct vm_state *save(struct guest *guest)
{
    struct thaw_error error;
    struct vm_state *state = vm_state_new(guest->vm->vcpu_count);
    cr_assert_not_null(state);
    cr_assert_eq(vm_state_save(guest->vm, state, &error), 0, "%s", error.message);
    return state;
}

static void make_target(void)
{
    struct thaw_error error;
    for (struct thaw_vm *other;;) {
        cr_assert_eq(vm_new_shell(target.env, "target", &source.vm->shape, VM_THREADS_ASLEEP, NULL,
                         NULL, &other, &error),
            0, "%s", error.message);
        if (known == KNOWN_PREPARED)
            cr_assert_eq(vm_prepare_shell(other, &prepared, &error), 0, "%s", error.message);
        bool is_known = other->fresh_chips && other->vcpus[0].fresh.state;
        if (is_known || known == KNOWN_NOTHING) {
            cr_assert_eq(is_known, known != KNOWN_NOTHING);
            target.vm = other;
            return;
        }
        vm_destroy(other);
    }
}

/* Makes the target from the paused source's memory and a state, which it frees. */
static void move_with(struct vm_state *state, enum vm_clock_policy policy)
{
    struct thaw_error error;
    memset(&target, 0, sizeof(target));
    pthread_mutex_init(&target.lock, NULL);
    pthread_cond_init(&target.more, NULL);
    cr_assert_eq(thaw_env_new(NULL, &target.env, &error), 0, "%s", error.message);
    make_target();
    cr_assert_eq(mem_map_anonymous(&target.vm->mem, &error), 0, "%s", error.message);
    memcpy(target.vm->mem.base, source.vm->mem.base, source.vm->mem.bytes);
    struct vm_devices devices = {.console = keep};
    cr_assert_eq(
        vm_state_restore(target.vm, state, &devices, policy, &error), 0, "%s", error.message);
    vm_state_free(state);
}

static void move(enum vm_clock_policy policy)
{
    move_with(save(&source), policy);
}

static void free_both(void)
{
    guest_free(&source);
    guest_free(&target);
}

static void start(const char *kernel, const char *cmdline, uint32_t vcpus, const char *until)
{
    guest_new(&source,
        (struct thaw_vm_options){
            .kernel_path = kernel, .cmdline = cmdline, .vcpu_count = vcpus, .mem_bytes = 16 << 20});
    guest_start(&source);
    guest_expect(&source, until, 0);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
}

Test(vm_state, the_count_goes_on_in_both)
{
    start("tick", "interval=1000000", 1, "tick 5\n");
    uint32_t count = guest_info(&source).mark;
    move(VM_CLOCK_CONTINUE);
    cr_assert_eq(guest_info(&target).state, THAW_VM_PAUSED);
    cr_assert_eq(thaw_vm_resume(target.vm, NULL), 0);
    char line[32];
    snprintf(line, sizeof(line), "tick %u\n", count + 2);
    guest_expect(&target, line, 0);
    cr_assert_eq(thaw_vm_pause(target.vm, NULL), 0);
    cr_assert(!strstr(target.console, "tick 3\n"));
    cr_assert_eq(thaw_vm_resume(source.vm, NULL), 0);
    guest_expect(&source, line, 0);
    free_both();
}

Test(vm_state, a_thousand_ticks_survive_being_moved_at_any_point)
{
    start("tick", "interval=30000 wait=spin", 1, "tick 5\n");
    for (unsigned i = 0; i < 20; i++) {
        cr_assert_eq(thaw_vm_resume(source.vm, NULL), 0);
        usleep(1000 + i * 137);
        cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
        size_t printed = guest_console_count(&source);
        move(VM_CLOCK_CONTINUE);
        cr_assert_eq(thaw_vm_resume(target.vm, NULL), 0);
        guest_expect(&target, "\ntick ", 0);
        /* What the target prints continues, to the byte, what the source printed. */
        cr_assert_eq(thaw_vm_pause(target.vm, NULL), 0);
        cr_assert_eq(thaw_vm_resume(source.vm, NULL), 0);
        while (guest_console_count(&source) < printed + 20)
            usleep(500);
        cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
        size_t count = guest_console_count(&target);
        cr_assert_arr_eq(target.console, source.console + printed, count < 20 ? count : 20);
        guest_free(&target);
    }
    guest_free(&source);
}

Test(vm_state, timers_of_every_kind_go_on)
{
    static const char *const modes[] = {"periodic", "oneshot", "deadline"};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        char until[32];
        snprintf(until, sizeof(until), "%s\n", modes[i]);
        start("timer", "ticks=20 period_us=20000", 1, until);
        move(VM_CLOCK_CONTINUE);
        cr_assert_eq(thaw_vm_resume(target.vm, NULL), 0);
        struct thaw_vm_info info = guest_wait(&target);
        cr_assert_eq(info.reason, THAW_REASON_EXIT, "%s", info.detail);
        cr_assert_eq(info.exit_status, 0, "%s", target.console);
        free_both();
    }
}

Test(vm_state, timers_go_on_when_the_clock_jumps_ahead)
{
    start("timer", "ticks=20 period_us=20000", 1, "deadline\n");
    usleep(100000);
    move(VM_CLOCK_HOST);
    cr_assert_eq(thaw_vm_resume(target.vm, NULL), 0);
    cr_assert_eq(guest_wait(&target).exit_status, 0, "%s", target.console);
    free_both();
}

Test(vm_state, all_cpus_go_on)
{
    start("smp", "loop=1 period_us=2000", 4, "smp: cpu 3 count");
    move(VM_CLOCK_CONTINUE);
    cr_assert_eq(thaw_vm_resume(target.vm, NULL), 0);
    for (unsigned cpu = 0; cpu < 4; cpu++) {
        char line[32];
        snprintf(line, sizeof(line), "smp: cpu %u count", cpu);
        guest_expect(&target, line, 0);
    }
    free_both();
}

Test(vm_state, tsc_offsets_are_one_for_all_cpus_and_time_does_not_go_back)
{
    start("smp", "loop=1 period_us=2000", 4, "smp: cpu 3 count");
    move(VM_CLOCK_CONTINUE);
    struct vm_state *before = vm_state_new(4), *after = vm_state_new(4);
    cr_assert_eq(vm_state_save(source.vm, before, NULL), 0);
    cr_assert_eq(vm_state_save(target.vm, after, NULL), 0);
    for (unsigned cpu = 1; cpu < 4; cpu++)
        cr_assert_eq(after->vcpus[cpu].tsc - after->vcpus[0].tsc,
            before->vcpus[cpu].tsc - before->vcpus[0].tsc);
    cr_assert_geq(after->clock.kvmclock_ns, 1);
    vm_state_free(before);
    vm_state_free(after);
    free_both();
}

static uint32_t clock_flags(int vm_fd)
{
    struct kvm_clock_data data = {0};
    cr_assert_eq(ioctl(vm_fd, KVM_GET_CLOCK, &data), 0);
    return data.flags;
}

/* What KVM says of the clock of a VM with two vCPUs that nobody has set the TSC of. */
static uint32_t clock_flags_by_hand(int kvm_fd)
{
    struct kvm_clock_data clock = {0};
    int vcpu_fds[2], vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    cr_assert_geq(vm_fd, 0);
    for (unsigned i = 0; i < 2; i++)
        cr_assert_geq(vcpu_fds[i] = ioctl(vm_fd, KVM_CREATE_VCPU, (unsigned long)i), 0);
    cr_assert_eq(ioctl(vm_fd, KVM_SET_CLOCK, &clock), 0);
    uint32_t flags = clock_flags(vm_fd);
    close(vcpu_fds[0]);
    close(vcpu_fds[1]);
    close(vm_fd);
    return flags;
}

/* Also in the first VM of an environment, which finds out what KVM does with a TSC. Else guests are
 * told that their clock is not stable, and ask for the time by system calls. */
Test(vm_state, kvm_takes_the_tscs_of_all_cpus_for_one)
{
    start("smp", "loop=1 period_us=2000", 2, "smp: cpu 1 count");
    uint32_t flags = clock_flags_by_hand(source.vm->env->kvm.fd);
    cr_assert_eq(clock_flags(source.vm->fd), flags, "booted: %x", clock_flags(source.vm->fd));
    move(VM_CLOCK_CONTINUE);
    cr_assert_eq(clock_flags(target.vm->fd), flags, "restored: %x", clock_flags(target.vm->fd));
    free_both();
}

/* KVM scales what is not near. */
Test(vm_state, a_tsc_is_scaled_where_kvm_does_so)
{
    uint64_t days = 3000000000ull * 86400 * 30; /* more than 64 bits, when multiplied */
    cr_assert_eq(tsc_scale(days, 3000000, 3000000), days);
    cr_assert_eq(tsc_scale(days, 3000000, 3000100), days);
    cr_assert_eq(tsc_scale(days, 3000000, 1500000), days / 2);
    cr_assert_eq(tsc_scale(days, 3000000, 6000000), days * 2);
}

/* Whichever CPU of the guest computes the time, and from what: the clock that it was told of before
 * goes on with the TSC, and what is set must not be behind that. */
Test(vm_state, the_clock_loses_nothing_against_the_tsc)
{
    start("smp", "loop=1 period_us=2000", 2, "smp: cpu 1 count");
    struct vm_state *state = save(&source);
    uint32_t khz = state->vcpus[0].tsc_khz;
    for (unsigned i = 0; i < 100; i++) {
        const struct clock_start begin = {
            .kvmclock_ns = 5000000000 + i, .host_tsc = host_tsc(), .tsc_khz = khz, .host_khz = khz};
        struct kvm_clock_data now = {0};
        struct thaw_error error;
        usleep(i * 10); /* as long as setting all else takes */
        cr_assert_eq(vm_clock_restore(source.vm->fd, &begin, &error), 0, "%s", error.message);
        uint64_t tsc = host_tsc();
        cr_assert_eq(ioctl(source.vm->fd, KVM_GET_CLOCK, &now), 0);
        if (now.flags & KVM_CLOCK_HOST_TSC)
            tsc = now.host_tsc;
        uint64_t passed_ns = (uint64_t)((unsigned __int128)(tsc - begin.host_tsc) * 1000000 / khz);
        cr_assert_geq(now.clock, begin.kvmclock_ns + passed_ns);
        /* As little ahead as this machine allows, which may be busy. */
        cr_assert_lt(now.clock, begin.kvmclock_ns + passed_ns + 1000000000);
    }
    vm_state_free(state);
    guest_free(&source);
}

/* A guest that lets KVM write its clock to a page is told there that it stood still, also if the
 * state was read meanwhile. Flags are byte 29 of the page, and bit 1 says so
 * (Documentation/virt/kvm/x86/msr.rst, cpuid.rst). */
Test(vm_state, a_guest_with_kvms_clock_is_told_that_it_stood_still)
{
    start("tick", "interval=1000000", 1, "tick 3\n");
    struct thaw_vm *vm = source.vm;
    uint64_t page = vm->mem.regions[0].bytes - PAGE_BYTES;
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } clock = {.head.nmsrs = 1, .entry = {.index = 0x4b564d01, .data = page | 1}};
    cr_assert_eq(ioctl(vm->vcpus[0].fd, KVM_SET_MSRS, &clock), 1);
    vm_state_free(save(&source));
    cr_assert(vm->vcpus[0].has_kvmclock);
    cr_assert_eq(thaw_vm_resume(vm, NULL), 0);
    guest_expect(&source, "tick ", guest_console_count(&source));
    cr_assert_eq(thaw_vm_pause(vm, NULL), 0);
    cr_assert(vm->mem.base[page + 29] & 2);

    clock.entry.data = 0;
    cr_assert_eq(ioctl(vm->vcpus[0].fd, KVM_SET_MSRS, &clock), 1);
    vm_state_free(save(&source));
    cr_assert_not(vm->vcpus[0].has_kvmclock, "and who has none need not be");
    cr_assert_eq(thaw_vm_resume(vm, NULL), 0);
    cr_assert(vm->vcpus[0].has_kvmclock, "but may have one the next time");
    guest_free(&source);
}

Test(vm_state, a_moved_guest_saves_as_much_as_the_first_time)
{
    start("smp", "loop=1 period_us=2000", 2, "smp: cpu 1 count");
    move(VM_CLOCK_CONTINUE);
    struct vm_state *before = vm_state_new(2), *after = vm_state_new(2);
    cr_assert_eq(vm_state_save(source.vm, before, NULL), 0);
    cr_assert_eq(vm_state_save(target.vm, after, NULL), 0);
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        const struct vcpu_state *a = &before->vcpus[cpu], *b = &after->vcpus[cpu];
        cr_assert_eq(a->msr_count, b->msr_count);
        cr_assert_eq(a->cpuid_count, b->cpuid_count);
        cr_assert_eq(a->xsave_bytes, b->xsave_bytes);
        cr_assert_arr_eq(&a->regs, &b->regs, sizeof(a->regs));
        cr_assert_arr_eq(&a->sregs, &b->sregs, sizeof(a->sregs));
        cr_assert_arr_eq(a->xsave, b->xsave, a->xsave_bytes);
        cr_assert_eq(a->mp_state.mp_state, b->mp_state.mp_state);
        cr_assert_arr_eq(a->cpuid, b->cpuid, a->cpuid_count * sizeof(a->cpuid[0]));
        cr_assert_arr_eq(&a->xcrs, &b->xcrs, sizeof(a->xcrs));
        cr_assert_arr_eq(&a->debugregs, &b->debugregs, sizeof(a->debugregs));
        cr_assert_arr_eq(&a->events, &b->events, sizeof(a->events));
    }
    vm_state_free(before);
    vm_state_free(after);
    free_both();
}

/* Part of the processor's name, which the guest does not look at. */
static struct kvm_cpuid_entry2 *name_leaf(struct vcpu_state *vcpu)
{
    for (uint32_t i = 0; i < vcpu->cpuid_count; i++)
        if (vcpu->cpuid[i].function == 0x80000002u)
            return &vcpu->cpuid[i];
    return NULL;
}

static uint64_t *msr(struct vcpu_state *vcpu, uint32_t index)
{
    for (uint32_t i = 0; i < vcpu->msr_count; i++)
        if (vcpu->msrs[i].index == index)
            return (uint64_t *)&vcpu->msrs[i].data;
    cr_assert_fail("no MSR 0x%x", index);
    return NULL;
}

#define MSR_MTRR_DEF_TYPE  0x2ff
#define MSR_KERNEL_GS_BASE 0xc0000102
#define LAPIC_TPR          0x80
#define XSAVE_FCW          0 /* the x87 control word */
#define XSAVE_BITS         512

/* All of these, together or none, differ from what a new VM has. */
static void differ(struct vm_state *state)
{
    struct vcpu_state *vcpu = &state->vcpus[0];
    vcpu->debugregs.db[0] = 0x1000;
    vcpu->debugregs.dr7 = 0x401;
    vcpu->events.nmi.masked = 1;
    vcpu->mp_state.mp_state = KVM_MP_STATE_HALTED;
    vcpu->lapic.regs[LAPIC_TPR] = 0x20;
    vcpu->xsave[XSAVE_FCW] ^= 0x3f;
    vcpu->xsave[XSAVE_BITS] |= 1;
    *msr(vcpu, MSR_KERNEL_GS_BASE) = 0x123456789000;
    *msr(vcpu, MSR_MTRR_DEF_TYPE) = 0x800;
    state->chips.pic_master.chip.pic.imr = 0xa5;
    state->chips.pic_slave.chip.pic.imr = 0x5a;
    state->chips.ioapic.chip.ioapic.redirtbl[9].fields.vector = 0x77;
    state->chips.pit.channels[2].count = 0x1234;
    state->chips.pit.channels[2].mode = 3;
}

static void compare(const struct vm_state *one, const struct vm_state *other)
{
    const struct vcpu_state *a = &one->vcpus[0], *b = &other->vcpus[0];
    cr_assert_arr_eq(&a->regs, &b->regs, sizeof(a->regs));
    cr_assert_arr_eq(&a->debugregs, &b->debugregs, sizeof(a->debugregs));
    cr_assert_eq(a->events.nmi.masked, b->events.nmi.masked);
    cr_assert_eq(a->mp_state.mp_state, b->mp_state.mp_state);
    cr_assert_eq(a->lapic.regs[LAPIC_TPR], b->lapic.regs[LAPIC_TPR]);
    cr_assert_eq(a->xsave[XSAVE_FCW], b->xsave[XSAVE_FCW]);
    cr_assert_eq(a->msr_count, b->msr_count);
    cr_assert_arr_eq(a->msrs, b->msrs, a->msr_count * sizeof(a->msrs[0]));
    cr_assert_eq(one->chips.pic_master.chip.pic.imr, other->chips.pic_master.chip.pic.imr);
    cr_assert_eq(one->chips.pic_slave.chip.pic.imr, other->chips.pic_slave.chip.pic.imr);
    cr_assert_arr_eq(one->chips.ioapic.chip.ioapic.redirtbl,
        other->chips.ioapic.chip.ioapic.redirtbl, sizeof(one->chips.ioapic.chip.ioapic.redirtbl));
    cr_assert_eq(one->chips.pit.channels[2].count, other->chips.pit.channels[2].count);
    cr_assert_eq(one->chips.pit.channels[2].mode, other->chips.pit.channels[2].mode);
}

Test(vm_state, what_differs_from_a_new_vm_is_set_and_the_rest_is_there)
{
    start("tick", "", 1, "tick 1\n");
    for (known = KNOWN_NOTHING; known < KNOWN_END; known++)
        for (int different = 0; different < 2; different++) {
            struct vm_state *before = save(&source), *wanted = save(&source);
            if (different) {
                differ(before);
                differ(wanted);
            }
            move_with(before, VM_CLOCK_CONTINUE);
            struct vm_state *after = save(&target);
            compare(wanted, after);
            vm_state_free(wanted);
            vm_state_free(after);
            guest_free(&target);
        }
    known = KNOWN_NOTHING;
    fresh_fini(&prepared);
    guest_free(&source);
}

Test(vm_state, a_vcpu_of_other_features_has_all_its_state_set)
{
    start("tick", "", 1, "tick 1\n");
    known = KNOWN_NEW;
    struct vm_state *before = save(&source);
    name_leaf(&before->vcpus[0])->eax = 0x77616874;
    move_with(before, VM_CLOCK_CONTINUE);
    vcpu_fixed_fini(&target.vm->vcpus[0].fixed); /* KVM is asked */
    struct vm_state *after = save(&target);
    cr_assert_eq(name_leaf(&after->vcpus[0])->eax, 0x77616874);
    vm_state_free(after);
    free_both();
}

/* --- Console input beside it ------------------------------------------------------------------ */

#define INPUT_ROUNDS 500
#define COM1_DATA    0
#define COM1_IER     1
#define COM1_MCR     4
#define COM1_LSR     5

/* Types a byte in each round, some time after it began. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned begun, done; /* rounds */
    uint64_t delay_ns;    /* of the round that has begun */
} typist = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void *type(void *data)
{
    pthread_mutex_lock(&typist.lock);
    while (typist.done < INPUT_ROUNDS) {
        while (typist.begun == typist.done)
            pthread_cond_wait(&typist.changed, &typist.lock);
        uint64_t until = timing_now_ns() + typist.delay_ns;
        pthread_mutex_unlock(&typist.lock);
        while (timing_now_ns() < until)
            ;
        thaw_vm_console_input(data, "x", 1, NULL);
        pthread_mutex_lock(&typist.lock);
        typist.done++;
        pthread_cond_broadcast(&typist.changed);
    }
    pthread_mutex_unlock(&typist.lock);
    return NULL;
}

static void begin_round(uint64_t delay_ns)
{
    pthread_mutex_lock(&typist.lock);
    typist.delay_ns = delay_ns;
    typist.begun++;
    pthread_cond_broadcast(&typist.changed);
    pthread_mutex_unlock(&typist.lock);
}

static void end_round(void)
{
    pthread_mutex_lock(&typist.lock);
    while (typist.done < typist.begun)
        pthread_cond_wait(&typist.changed, &typist.lock);
    pthread_mutex_unlock(&typist.lock);
}

static void com1_put(struct thaw_vm *vm, uint64_t reg, uint8_t value)
{
    serial_bus_ops.write(&vm->machine.serial, reg, &value, 1);
}

static uint8_t com1_get(struct thaw_vm *vm, uint64_t reg)
{
    uint8_t value;
    serial_bus_ops.read(&vm->machine.serial, reg, &value, 1);
    return value;
}

static bool pin_is_raised(const struct kvm_ioapic_state *ioapic)
{
    return ioapic->irr & 1u << MACHINE_COM1_GSI ||
           ioapic->redirtbl[MACHINE_COM1_GSI].fields.remote_irr;
}

static struct kvm_irqchip read_ioapic(struct thaw_vm *vm)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
    cr_assert_eq(ioctl(vm->fd, KVM_GET_IRQCHIP, &chip), 0);
    return chip;
}

/* As a driver has COM1's pin, with nothing on its way. */
static void open_pin(struct thaw_vm *vm)
{
    struct kvm_irqchip chip = read_ioapic(vm);
    chip.chip.ioapic.irr &= ~(1u << MACHINE_COM1_GSI);
    chip.chip.ioapic.redirtbl[MACHINE_COM1_GSI].bits = 0;
    chip.chip.ioapic.redirtbl[MACHINE_COM1_GSI].fields.vector = 0x30;
    chip.chip.ioapic.redirtbl[MACHINE_COM1_GSI].fields.trig_mode = 1;
    cr_assert_eq(ioctl(vm->fd, KVM_SET_IRQCHIP, &chip), 0);
    chip = read_ioapic(vm);
    cr_assert_not(pin_is_raised(&chip.chip.ioapic));
}

/* An interrupt that a state's controllers have seen, and its serial port and local APIC have not,
 * is one that nobody ever acknowledges. */
Test(vm_state, input_that_comes_while_it_is_read_leaves_no_interrupt_behind_in_it)
{
    start("tick", "", 1, "tick 1\n");
    struct thaw_vm *vm = source.vm;
    com1_put(vm, COM1_MCR, 8);
    com1_put(vm, COM1_IER, 1);
    uint64_t begin = timing_now_ns();
    vm_state_free(save(&source));
    uint64_t takes_ns = timing_now_ns() - begin;

    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, type, vm), 0);
    for (unsigned i = 0; i < INPUT_ROUNDS; i++) {
        open_pin(vm);
        begin_round(takes_ns * (i % 50) / 40);
        struct vm_state *state = save(&source);
        end_round();
        cr_assert(state->machine.serial.fifo_count > 0 ||
                      !pin_is_raised(&state->chips.ioapic.chip.ioapic),
            "round %u", i);
        vm_state_free(state);
        cr_assert_eq(com1_get(vm, COM1_DATA), 'x', "the source has it, in any case");
        cr_assert_eq(com1_get(vm, COM1_LSR) & 1, 0);
    }
    pthread_join(thread, NULL);

    open_pin(vm);
    thaw_vm_console_input(vm, "y", 1, NULL);
    machine_resume(&vm->machine); /* without the guest, which has no handler */
    struct kvm_irqchip chip = read_ioapic(vm);
    cr_assert(pin_is_raised(&chip.chip.ioapic), "it is announced once the VM goes on");
    guest_free(&source);
}

Test(vm_state, a_state_of_another_shape_is_refused)
{
    start("tick", "", 1, "tick 1\n");
    struct vm_state *state = vm_state_new(2);
    struct vm_devices devices = {0};
    cr_assert_eq(
        vm_state_restore(source.vm, state, &devices, VM_CLOCK_CONTINUE, NULL), THAW_ECORRUPT);
    vm_state_free(state);
    guest_free(&source);
}

static uint64_t *collect(struct guest *guest, uint64_t *ret_pages)
{
    struct thaw_error error;
    size_t words = dirty_bitmap_words(&guest->vm->mem);
    uint64_t *bits = calloc(words, sizeof(*bits));
    uint64_t *private = calloc(words, sizeof(*private));
    struct mem *mem = &guest->vm->mem;
    cr_assert_eq(dirty_take(mem, guest->vm->fd, bits, &error), 0, "%s", error.message);
    cr_assert_eq(pagemap_private(mem->base, mem->bytes, private, &error), 0, "%s", error.message);
    *ret_pages = 0;
    for (size_t i = 0; i < words; i++)
        bits[i] &= private[i];
    free(private);
    for (size_t i = 0; i < words; i++)
        *ret_pages += (uint64_t)__builtin_popcountll(bits[i]);
    return bits;
}

Test(vm_state, the_first_time_all_pages_in_use_have_marks_and_then_what_changed)
{
    start("tick", "interval=1000000", 1, "tick 5\n");
    uint64_t first, none, some, again;
    free(collect(&source, &first));
    cr_assert_gt(first, 10);
    cr_assert_lt(first, 1000, "untouched memory is not collected");
    free(collect(&source, &none));
    cr_assert_eq(none, 0);

    cr_assert_eq(thaw_vm_resume(source.vm, NULL), 0);
    size_t printed = guest_console_count(&source);
    /* From line to line, since the guest writes nothing while it prints one. */
    guest_expect(&source, "\ntick ", printed);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    cr_assert_eq(mem_write(&source.vm->mem, 8 << 20, "host", 4), 0);
    uint64_t *bits = collect(&source, &some);
    cr_assert_geq(some, 2);
    cr_assert_lt(some, first);
    cr_assert(bits[(8 << 20) / PAGE_BYTES / 64] & 1, "this process's own write is seen");

    dirty_put_back(&source.vm->mem, bits);
    free(bits);
    free(collect(&source, &again));
    cr_assert_eq(again, some, "what is put back is collected again");
    guest_free(&source);
}
