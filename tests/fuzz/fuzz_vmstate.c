// SPDX-License-Identifier: Apache-2.0
// VM states are untrusted. Any bytes are refused, or read, written and read again with the same
// result. The last byte chooses: even, the file is as it stands; odd, its checksums are made good
// first, so that the records behind them are reached too.

#include "check.h"
#include "file_header.h"
#include "fuzz.h"
#include "state_file.h"

#define CHECK_BYTES 16

static void make_checksums_good(uint8_t *bytes, size_t count)
{
    if (count < FILE_HEADER_BYTES + CHECK_BYTES)
        return;
    size_t header_bytes = wire_load_u32(bytes + 12);
    if (header_bytes >= FILE_HEADER_BYTES && header_bytes <= count)
        wire_store_u64(bytes + header_bytes - 8, check_64(bytes, header_bytes - 8));
    wire_store_b16(bytes + count - CHECK_BYTES,
        check_128(bytes + 32, 16 /* the file's id */, bytes, count - CHECK_BYTES));
}

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* What was taken is complete: it can be described, and what is written of it is a fixed point. */
static void write_and_read_again(const struct vm_state *state)
{
    static const struct wire_b16 id = {{1}};
    struct vm_state *again;
    struct thaw_error error;
    uint8_t *first, *second;
    size_t first_count, second_count;
    require(state_file_encode(state, &id, &first, &first_count, &error) == 0);
    require(state_file_decode(first, first_count, "again", &again, &error) == 0);
    require(state_file_encode(again, &id, &second, &second_count, &error) == 0);
    require(first_count == second_count && memcmp(first, second, first_count) == 0);
    json_t *all = state_file_describe(again);
    fuzz_use((unsigned)json_object_size(all));
    json_decref(all);
    vm_state_free(again);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    struct vm_state *state;
    struct thaw_error error;
    if (count == 0)
        return 0;
    uint8_t *bytes = fuzz_copy(data, --count);
    if (data[count] % 2)
        make_checksums_good(bytes, count);
    if (state_file_decode(bytes, count, "fuzz", &state, &error) == 0) {
        write_and_read_again(state);
        vm_state_free(state);
    }
    free(bytes);
    return 0;
}
