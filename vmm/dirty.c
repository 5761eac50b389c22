// SPDX-License-Identifier: Apache-2.0
// The union of what KVM and this process know of changed pages. Does not copy any.

#include "dirty.h"
#include <linux/kvm.h>
#include <sys/ioctl.h>

#define CLEAR_PAGES (64 * MIB / PAGE_BYTES)

int dirty_enable(int vm_fd, struct thaw_error *error)
{
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
    };
    if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap) < 0)
        return error_errno(error, errno, "setting the mode of KVM's dirty log");
    return 0;
}

size_t dirty_bitmap_words(const struct mem *mem)
{
    return (size_t)((mem->bytes / PAGE_BYTES + 63) / 64);
}

static uint64_t *region_bits(uint64_t *bits, const struct mem_region *region)
{
    /* Regions begin and end on multiples of 64 pages, so each has words of its own. */
    return bits + region->ram_off / PAGE_BYTES / 64;
}

static int read_log(const struct mem *mem, int vm_fd, uint64_t *log, struct thaw_error *error)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        struct kvm_dirty_log query = {
            .slot = i, .dirty_bitmap = region_bits(log, &mem->regions[i])};
        if (ioctl(vm_fd, KVM_GET_DIRTY_LOG, &query) < 0)
            return error_errno(error, errno, "reading KVM's dirty log");
    }
    return 0;
}

static bool any(const uint64_t *bits, uint64_t words)
{
    uint64_t all = 0;
    for (uint64_t i = 0; i < words; i++)
        all |= bits[i];
    return all != 0;
}

/* In pieces, since KVM holds up the guest's page faults during each; and not where no bit is set.
 */
static int clear_log(const struct mem *mem, int vm_fd, uint64_t *bits, struct thaw_error *error)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct mem_region *region = &mem->regions[i];
        uint64_t pages = region->bytes / PAGE_BYTES;
        for (uint64_t first = 0; first < pages; first += CLEAR_PAGES) {
            struct kvm_clear_dirty_log clear = {
                .slot = i,
                .num_pages = (uint32_t)MIN(pages - first, CLEAR_PAGES),
                .first_page = first,
                .dirty_bitmap = region_bits(bits, region) + first / 64,
            };
            if (!any(clear.dirty_bitmap, ALIGN_UP(clear.num_pages, 64) / 64))
                continue;
            if (ioctl(vm_fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
                return error_errno(error, errno, "clearing KVM's dirty log");
        }
    }
    return 0;
}

/* Why this may run beside the guest and devices: each mark is taken away before the caller reads
 * the page, and each writer marks its page no earlier than it can write to it.
 *   Guest stores: clearing a bit of the log write-protects the page and flushes the TLBs before the
 *     call returns. Stores before that are seen; one after it faults, and KVM sets the bit again.
 *   Stores by KVM (emulated instructions, its clock pages) and by this process are marked after the
 *     bytes are there, with a full barrier. If that mark is one we have taken, the bytes are seen;
 *     if it comes later, it stays.
 * A page that is marked between the reading and the clearing keeps its mark: only bits that were
 * read are cleared. */
int dirty_take(struct mem *mem, int vm_fd, uint64_t *ret_bits, struct thaw_error *error)
{
    int r = read_log(mem, vm_fd, ret_bits, error);
    if (r < 0)
        return r;
    r = clear_log(mem, vm_fd, ret_bits, error);
    if (r < 0) {
        dirty_put_back(mem, ret_bits);
        return r;
    }
    for (size_t i = 0; i < dirty_bitmap_words(mem); i++)
        if (atomic_load_explicit(&mem->host_dirty[i], memory_order_relaxed))
            ret_bits[i] |= atomic_exchange(&mem->host_dirty[i], 0);
    return 0;
}

int dirty_peek(const struct mem *mem, int vm_fd, uint64_t *ret_bits, struct thaw_error *error)
{
    int r = read_log(mem, vm_fd, ret_bits, error);
    for (size_t i = 0; i < dirty_bitmap_words(mem) && r == 0; i++)
        ret_bits[i] |= atomic_load_explicit(&mem->host_dirty[i], memory_order_relaxed);
    return r;
}

void dirty_put_back(struct mem *mem, const uint64_t *bits)
{
    for (size_t i = 0; i < dirty_bitmap_words(mem); i++)
        if (bits[i])
            atomic_fetch_or(&mem->host_dirty[i], bits[i]);
}
