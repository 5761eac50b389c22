// SPDX-License-Identifier: Apache-2.0
// The MMIO transport with a device that only counts.

#include "machine.h"
#include "unit/virtio_guest.h"
#include <criterion/criterion.h>
#include <string.h>

#define FEATURE (1ull << 5)

struct device {
    struct virtio_mmio virtio;
    int notified;
    int stopped;
    uint8_t config[6];
};

static void read_config(void *data, uint32_t offset, uint8_t *bytes, unsigned count)
{
    struct device *device = data;
    for (unsigned i = 0; i < count && offset + i < sizeof(device->config); i++)
        bytes[i] = device->config[offset + i];
}

static void write_config(void *data, uint32_t offset, const uint8_t *bytes, unsigned count)
{
    struct device *device = data;
    for (unsigned i = 0; i < count && offset + i < sizeof(device->config); i++)
        device->config[offset + i] = bytes[i];
}

static void notify(void *data, unsigned queue)
{
    (void)queue;
    ((struct device *)data)->notified++;
}

static void stop(void *data)
{
    ((struct device *)data)->stopped++;
}

static const struct virtio_ops ops = {
    .read_config = read_config, .write_config = write_config, .notify = notify, .stop = stop};

static int device_init(struct device *device, struct guest *guest,
    const struct virtio_mmio_state *state, struct thaw_error *error)
{
    *device = (struct device){.config = {1, 2, 3, 4, 5, 6}};
    struct virtio_device_info info = {.name = "counter",
        .device_id = 42,
        .features = FEATURE,
        .queue_count = 2,
        .queue_size_max = 64,
        .ops = &ops,
        .device = device};
    struct virtio_env env = guest_env(guest);
    return virtio_mmio_init(&device->virtio, &env, &info, state, error);
}

static void setup(struct guest *guest, struct device *device)
{
    guest_init(guest);
    cr_assert_eq(device_init(device, guest, NULL, NULL), 0);
}

static void teardown(struct guest *guest, struct device *device)
{
    virtio_mmio_fini(&device->virtio);
    guest_fini(guest);
}

static void raise_interrupt(struct device *device)
{
    pthread_mutex_lock(&device->virtio.lock);
    virtio_mmio_push_locked(&device->virtio, 0, 0, 0);
    pthread_mutex_unlock(&device->virtio.lock);
}

Test(virtio_mmio, says_who_it_is)
{
    struct guest guest;
    struct device device;
    setup(&guest, &device);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_VERSION), 2);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_DEVICE_ID), 42);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_QUEUE_NUM_MAX), 64);
    guest_write(&guest, VIRTIO_MMIO_QUEUE_SEL, 2);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_QUEUE_NUM_MAX), 0, "there is no third queue");
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_CONFIG_GENERATION), 0);
    teardown(&guest, &device);
}

Test(virtio_mmio, offers_its_features_in_two_halves)
{
    struct guest guest;
    struct device device;
    setup(&guest, &device);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_DEVICE_FEATURES),
        FEATURE | 1u << VIRTIO_RING_F_INDIRECT_DESC);
    guest_write(&guest, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_DEVICE_FEATURES), 1);
    guest_write(&guest, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_DEVICE_FEATURES), 0);
    teardown(&guest, &device);
}

Test(virtio_mmio, accepts_only_features_that_it_offered_and_version_1)
{
    static const struct {
        uint64_t features;
        bool accepted;
    } cases[] = {{1ull << 32, true}, {1ull << 32 | FEATURE, true}, {FEATURE, false}, {0, false},
        {1ull << 32 | 1, false}, {3ull << 32, false}};
    struct guest guest;
    struct device device;
    setup(&guest, &device);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        guest_write(&guest, VIRTIO_MMIO_STATUS, 0);
        guest_write(&guest, VIRTIO_MMIO_STATUS, 3);
        guest_write(&guest, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        guest_write(&guest, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)cases[i].features);
        guest_write(&guest, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        guest_write(&guest, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(cases[i].features >> 32));
        guest_write(&guest, VIRTIO_MMIO_STATUS, 11);
        cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_STATUS), cases[i].accepted ? 11u : 3u);
        guest_write(&guest, VIRTIO_MMIO_STATUS, 15);
        cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_STATUS), cases[i].accepted ? 15u : 3u);
    }
    teardown(&guest, &device);
}

Test(virtio_mmio, notifies_the_device_only_when_driver_and_queue_are_ready)
{
    struct guest guest;
    struct device device;
    setup(&guest, &device);
    guest_notify(&guest);
    cr_assert_eq(device.notified, 0);
    guest_start(&guest, FEATURE, 64);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_QUEUE_READY), 1);
    guest_notify(&guest);
    cr_assert_eq(device.notified, 1);
    guest_write(&guest, VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    guest_write(&guest, VIRTIO_MMIO_QUEUE_NOTIFY, 2);
    guest_write(&guest, VIRTIO_MMIO_QUEUE_NOTIFY, UINT32_MAX);
    cr_assert_eq(device.notified, 1);
    guest_write(&guest, VIRTIO_MMIO_QUEUE_READY, 0);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_QUEUE_READY), 0);
    cr_assert_eq(device.stopped, 2, "once for the first reset, once for the queue");
    guest_notify(&guest);
    cr_assert_eq(device.notified, 1);
    teardown(&guest, &device);
}

Test(virtio_mmio, keeps_the_line_high_until_the_driver_acknowledged)
{
    struct guest guest;
    struct device device;
    setup(&guest, &device);
    guest_start(&guest, 0, 64);
    raise_interrupt(&device);
    raise_interrupt(&device);
    cr_assert(device.virtio.irq.level);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    guest_write(&guest, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
    cr_assert(device.virtio.irq.level);
    guest_write(&guest, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    cr_assert(!device.virtio.irq.level);
    teardown(&guest, &device);
}

Test(virtio_mmio, forgets_everything_on_reset)
{
    struct guest guest;
    struct device device;
    setup(&guest, &device);
    guest_start(&guest, FEATURE, 64);
    raise_interrupt(&device);
    guest_write(&guest, VIRTIO_MMIO_STATUS, 0);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_STATUS), 0);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_QUEUE_READY), 0);
    cr_assert(!device.virtio.irq.level);
    guest_start(&guest, 0, 64);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_STATUS), GUEST_STATUS_READY);
    teardown(&guest, &device);
}

Test(virtio_mmio, waits_for_a_reset_after_a_queue_that_makes_no_sense)
{
    struct guest guest;
    struct device device;
    setup(&guest, &device);
    guest_start(&guest, 0, 63);
    cr_assert(guest_device_is_broken(&guest));
    guest_notify(&guest);
    cr_assert_eq(device.notified, 0);
    guest_start(&guest, 0, 64);
    cr_assert(!guest_device_is_broken(&guest));
    pthread_mutex_lock(&device.virtio.lock);
    virtio_mmio_break_locked(&device.virtio);
    pthread_mutex_unlock(&device.virtio.lock);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG,
        "a driver that runs is told");
    teardown(&guest, &device);
}

Test(virtio_mmio, gives_access_to_the_configuration_in_any_width)
{
    struct guest guest;
    struct device device;
    uint8_t data[8];
    static const uint8_t expected[8] = {1, 2, 3, 4, 5, 6, 0, 0};
    setup(&guest, &device);
    for (unsigned bytes = 1; bytes <= 8; bytes *= 2) {
        memset(data, 0xee, sizeof(data));
        bus_read(&guest.bus, MACHINE_VIRTIO_GPA + VIRTIO_MMIO_CONFIG, data, bytes);
        cr_assert(memcmp(data, expected, bytes) == 0);
    }
    bus_write(&guest.bus, MACHINE_VIRTIO_GPA + VIRTIO_MMIO_CONFIG + 4, data, 8);
    cr_assert_eq(device.config[4], 1);
    bus_read(&guest.bus, MACHINE_VIRTIO_GPA + 0xff8, data, 8);
    cr_assert(memcmp(data, "\0\0\0\0\0\0\0\0", 8) == 0);
    teardown(&guest, &device);
}

Test(virtio_mmio, answers_all_ones_to_other_widths_and_ignores_such_writes)
{
    struct guest guest;
    struct device device;
    uint8_t data[8] = {0};
    setup(&guest, &device);
    static const unsigned widths[] = {1, 2, 8};
    for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
        memset(data, 0, sizeof(data));
        bus_read(&guest.bus, MACHINE_VIRTIO_GPA, data, widths[i]);
        cr_assert_eq(data[0], 0xff);
        cr_assert_eq(data[widths[i] - 1], 0xff);
        data[0] = 1;
        bus_write(&guest.bus, MACHINE_VIRTIO_GPA + VIRTIO_MMIO_STATUS, data, widths[i]);
        cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_STATUS), 0);
    }
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_STATUS + 2), UINT32_MAX);
    teardown(&guest, &device);
}

Test(virtio_mmio, goes_on_from_a_saved_state)
{
    struct guest guest;
    struct device first, second;
    struct virtio_mmio_state state, again;
    setup(&guest, &first);
    guest_start(&guest, FEATURE, 32);
    raise_interrupt(&first);
    virtio_mmio_save(&first.virtio, &state);

    guest.bus = (struct bus){0};
    cr_assert_eq(device_init(&second, &guest, &state, NULL), 0);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_STATUS), GUEST_STATUS_READY);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    cr_assert(second.virtio.irq.level);
    virtio_mmio_save(&second.virtio, &again);
    cr_assert_eq(again.queues[0].next_used, 1);
    cr_assert_eq(again.queues[0].size, 32);
    cr_assert_eq(again.driver_features, state.driver_features);
    guest_notify(&guest);
    cr_assert_eq(second.notified, 1);
    virtio_mmio_fini(&first.virtio);
    teardown(&guest, &second);
}

Test(virtio_mmio, refuses_saved_states_that_contradict_themselves)
{
    struct guest guest;
    struct device device, other;
    struct virtio_mmio_state good;
    struct thaw_error error = {0};
    setup(&guest, &device);
    guest_start(&guest, FEATURE, 32);
    virtio_mmio_save(&device.virtio, &good);
    for (int i = 0; i < 9; i++) {
        struct virtio_mmio_state state = good;
        if (i == 0)
            state.status |= 0x100;
        if (i == 1)
            state.interrupt_status = 4;
        if (i == 2)
            state.queue_count = 3;
        if (i == 3)
            state.driver_features = FEATURE;
        if (i == 4)
            state.driver_features |= 1;
        if (i == 5)
            state.status = VIRTIO_CONFIG_S_DRIVER_OK;
        if (i == 6)
            state.queues[0].size = 128;
        if (i == 7)
            state.queues[0].used_gpa = GUEST_RAM_BYTES;
        if (i == 8)
            state.queue_count = UINT32_MAX;
        guest.bus = (struct bus){0};
        cr_assert_eq(device_init(&other, &guest, &state, &error), THAW_ECORRUPT, "case %d", i);
        cr_assert_eq(guest.bus.count, 0);
    }
    teardown(&guest, &device);
}
