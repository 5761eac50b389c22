// SPDX-License-Identifier: Apache-2.0
// Builds the devices of a VM and puts them on its buses: the one list of them. No device logic.

#include "machine.h"

/* Which slot of the virtio window belongs to what: the entropy device first, then the disks. */
enum {
    SLOT_RNG = 0,
    SLOT_DISK = 1
};

static void on_disk_full(void *data)
{
    struct machine_disk *disk = data;
    struct machine *machine = disk->machine;
    machine->disk_full(machine->data, (unsigned)(disk - machine->disks));
}

static int add_disk(struct machine *machine, const struct virtio_env *virtio,
    const struct machine_config *config, const struct blk_state *state, struct thaw_error *error)
{
    unsigned index = machine->disk_count;
    struct machine_disk *slot = &machine->disks[index];
    struct disk *disk;
    int r = io_start(machine->io, error);
    if (r == 0)
        r = config->open_disk(config->disk_data, machine->io, index, &disk, error);
    if (r < 0)
        return r;

    struct blk_env env = {
        .virtio = *virtio,
        .io = machine->io,
        .disk = disk,
        .full = on_disk_full,
        .full_data = slot,
    };
    env.virtio.slot = SLOT_DISK + index;
    snprintf(env.id, sizeof(env.id), "thaw-disk%u", index);
    slot->machine = machine;
    r = blk_new(&env, state, &slot->blk, error);
    if (r < 0) {
        disk_free(disk);
        return r;
    }
    machine->disk_count++;
    return 0;
}

static int add_devices(struct machine *machine, int vm_fd, struct mem *mem,
    const struct machine_config *config, const struct machine_state *state,
    struct thaw_error *error)
{
    if (state && state->disk_count != config->disk_count)
        return error_set(error, THAW_ECORRUPT, "the state is of %u disks, the machine has %u",
            state->disk_count, config->disk_count);
    const struct virtio_env virtio = {
        .mem = mem, .mmio = &machine->mmio, .vm_fd = vm_fd, .slot = SLOT_RNG};
    int r = bus_add(&machine->pio, MACHINE_COM1_PORT, MACHINE_COM1_PORT_COUNT, &serial_bus_ops,
        &machine->serial, "serial port", error);
    if (r == 0)
        r = power_attach(&machine->power, &machine->pio, error);
    if (r == 0)
        r = io_new(IO_BACKEND_AUTO, &machine->io, error);
    if (r == 0)
        r = rng_new(&virtio, state ? &state->rng : NULL, &machine->rng, error);
    for (unsigned i = 0; i < config->disk_count && r == 0; i++)
        r = add_disk(machine, &virtio, config, state ? &state->disks[i] : NULL, error);
    return r;
}

int machine_init(struct machine *machine, int vm_fd, struct mem *mem,
    const struct machine_config *config, const struct machine_state *state,
    struct thaw_error *error)
{
    *machine = (struct machine){
        .power = {.ops = config->power_ops, .data = config->data},
        .ged_irq = {.vm_fd = vm_fd, .gsi = MACHINE_GED_GSI},
        .disk_full = config->disk_full,
        .data = config->data,
    };
    struct irq_line com1 = {.vm_fd = vm_fd, .gsi = MACHINE_COM1_GSI};
    serial_init(&machine->serial, com1, config->console, config->console_data,
        state ? &state->serial : NULL);
    int r = add_devices(machine, vm_fd, mem, config, state, error);
    if (r < 0)
        machine_fini(machine);
    return r;
}

void machine_fini(struct machine *machine)
{
    if (machine->pio.count == 0)
        return;
    for (unsigned i = 0; i < machine->disk_count; i++)
        blk_free(machine->disks[i].blk);
    rng_free(machine->rng);
    io_free(machine->io);
    serial_fini(&machine->serial);
    *machine = (struct machine){0};
}

void machine_save(struct machine *machine, struct machine_state *ret)
{
    *ret = (struct machine_state){.disk_count = machine->disk_count};
    serial_save(&machine->serial, &ret->serial);
    rng_save(machine->rng, &ret->rng);
    for (unsigned i = 0; i < machine->disk_count; i++)
        blk_save(machine->disks[i].blk, &ret->disks[i]);
}

void machine_reset(struct machine *machine, const struct machine_state *state)
{
    serial_reset(&machine->serial, &state->serial);
    rng_reset(machine->rng, &state->rng);
    for (unsigned i = 0; i < machine->disk_count; i++)
        blk_reset(machine->disks[i].blk, &state->disks[i]);
    machine->ged_irq.level = false;
}

void machine_pause(struct machine *machine)
{
    if (machine->pio.count == 0)
        return;
    serial_pause(&machine->serial);
    for (unsigned i = 0; i < machine->disk_count; i++)
        blk_pause(machine->disks[i].blk);
    if (machine->disk_count > 0)
        io_drain(machine->io);
}

void machine_resume(struct machine *machine)
{
    serial_resume(&machine->serial);
    rng_resume(machine->rng);
    for (unsigned i = 0; i < machine->disk_count; i++)
        blk_resume(machine->disks[i].blk);
}
