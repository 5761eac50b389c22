// SPDX-License-Identifier: Apache-2.0
// Identity, version and features of snapshot files. Knows nothing of what follows a header.

#include "file_header.h"
#include "check.h"

struct kind_info {
    const char *name;
    uint64_t magic;
    uint16_t major, minor;
    uint64_t supported; /* incompatible features that this version can read */
    const char *features[64];
};

static const struct kind_info kinds[FILE_KINDS] = {
    [FILE_KIND_PACK] = {"pack", FORMAT_MAGIC_PACK, PACK_MAJOR, PACK_MINOR, PACK_INCOMPAT_SUPPORTED,
        {"compression dictionaries", "encrypted frames"}},
    [FILE_KIND_INDEX] = {"page index", FORMAT_MAGIC_INDEX, INDEX_MAJOR, INDEX_MINOR,
        INDEX_INCOMPAT_SUPPORTED, {NULL}},
    [FILE_KIND_STATE] = {"VM state", FORMAT_MAGIC_STATE, STATE_MAJOR, STATE_MINOR,
        STATE_INCOMPAT_SUPPORTED, {NULL}},
};

void file_header_write(enum file_kind kind, struct file_header *header, uint8_t *bytes)
{
    header->magic = kinds[kind].magic;
    header->major = kinds[kind].major;
    header->minor = kinds[kind].minor;
    header->header_bytes = FILE_HEADER_BYTES;
    header->incompatible = 0;
    file_header_encode(header, bytes);
    wire_store_u64(bytes + FILE_HEADER_FIELD_BYTES, check_64(bytes, FILE_HEADER_FIELD_BYTES));
}

/* Of a file of any kind, and of any version and features: what is this? */
static int probe(const uint8_t *bytes, size_t count, const char *name, enum file_kind *ret_kind,
    struct file_header *ret, struct thaw_error *error)
{
    if (count < FILE_HEADER_BYTES)
        return error_set(error, THAW_ECORRUPT,
            "'%s' is too short to be a snapshot file (%zu bytes)", name, count);
    struct file_header header;
    file_header_decode(&header, bytes);
    unsigned kind = 0;
    while (kind < FILE_KINDS && kinds[kind].magic != header.magic)
        kind++;
    if (kind == FILE_KINDS)
        return error_set(error, THAW_ECORRUPT,
            "'%s' is damaged at offset 0, or not a snapshot file of thaw", name);
    if (header.header_bytes < FILE_HEADER_BYTES || header.header_bytes > FILE_HEADER_BYTES_MAX ||
        header.header_bytes % 8 != 0 || header.header_bytes > count)
        return error_set(error, THAW_ECORRUPT,
            "%s '%s' is damaged at offset 0: its header has %u bytes", kinds[kind].name, name,
            header.header_bytes);
    size_t checked = header.header_bytes - FILE_HEADER_CHECKSUM_BYTES;
    if (check_64(bytes, checked) != wire_load_u64(bytes + checked))
        return error_set(error, THAW_ECORRUPT,
            "%s '%s' is damaged from offset 0 to %zu: its header does not match its checksum",
            kinds[kind].name, name, (size_t)header.header_bytes);
    *ret_kind = (enum file_kind)kind;
    *ret = header;
    return 0;
}

static int refuse_features(
    const struct kind_info *info, uint64_t unknown, const char *name, struct thaw_error *error)
{
    char list[256] = "";
    size_t used = 0;
    for (unsigned bit = 0; bit < 64 && used < sizeof(list); bit++) {
        if (!(unknown >> bit & 1))
            continue;
        const char *comma = used ? ", " : "";
        int n = info->features[bit]
                    ? snprintf(list + used, sizeof(list) - used, "%s%s", comma, info->features[bit])
                    : snprintf(list + used, sizeof(list) - used, "%sfeature %u", comma, bit);
        used += n > 0 ? (size_t)n : 0;
    }
    return error_set(error, -EOPNOTSUPP, "%s '%s' needs what this version of thaw lacks: %s",
        info->name, name, list);
}

int file_header_read(enum file_kind kind, const uint8_t *bytes, size_t count, const char *name,
    struct file_header *ret, struct thaw_error *error)
{
    const struct kind_info *info = &kinds[kind];
    struct file_header header;
    enum file_kind found = kind;
    int r = probe(bytes, count, name, &found, &header, error);
    if (r < 0)
        return r;
    if (found != kind)
        return error_set(error, THAW_ECORRUPT, "'%s' is a %s file of thaw, not a %s", name,
            kinds[found].name, info->name);
    if (header.major != info->major)
        return error_set(error, -EOPNOTSUPP,
            "%s '%s' has format version %u.%u; this version of thaw reads %u.x", info->name, name,
            header.major, header.minor, info->major);
    if (header.incompatible & ~info->supported)
        return refuse_features(info, header.incompatible & ~info->supported, name, error);
    *ret = header;
    return 0;
}
