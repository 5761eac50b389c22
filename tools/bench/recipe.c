// SPDX-License-Identifier: Apache-2.0
// Makes the guests and judges what they print. Runs none.

#include "recipe.h"
#include "../../guest/memtouch/layout.h"
#include "scratch.h"
#include <elf.h>
#include <fcntl.h>
#include <string.h>

#define BEAT_GPA          0x100000u
#define BEAT_RECORD_GPA   0x101000u /* a page of its own */
#define BEAT_RECORD_BYTES (NONCE_BYTES + 4 + 1)
#define LINE_BYTES        128

/* One exit a round: the string instruction's. */
static const uint8_t beat_code[] = {
    0xfc,                                      /* cld */
    0xbb, 0x00, 0x10, 0x10, 0x00,              /* mov ebx, BEAT_RECORD_GPA */
    0xff, 0x43, NONCE_BYTES,                   /* again: inc dword [rbx + NONCE_BYTES] */
    0x89, 0xde,                                /* mov esi, ebx */
    0xb9, BEAT_RECORD_BYTES, 0x00, 0x00, 0x00, /* mov ecx, BEAT_RECORD_BYTES */
    0xba, 0xf8, 0x03, 0x00, 0x00,              /* mov edx, COM1 */
    0xf3, 0x6e,                                /* rep outsb */
    0xeb, 0xed,                                /* jmp again */
};

struct beat_file {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    uint8_t code[BEAT_RECORD_GPA - BEAT_GPA];
    char nonce[NONCE_BYTES];
    uint8_t count[4];
    char newline;
} __attribute__((packed));

static int write_file(const char *path, const void *bytes, size_t count, struct thaw_error *error)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, count) != (ssize_t)count)
        return bench_errno(error, "writing %s", path);
    return 0;
}

static int write_beat(const struct bench *bench, const char *path, struct thaw_error *error)
{
    static struct beat_file file;
    const uint64_t bytes = sizeof(file) - offsetof(struct beat_file, code);
    file.header = (Elf64_Ehdr){
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = BEAT_GPA,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 1,
    };
    file.segment = (Elf64_Phdr){
        .p_type = PT_LOAD,
        .p_flags = PF_R | PF_W | PF_X,
        .p_offset = offsetof(struct beat_file, code),
        .p_vaddr = BEAT_GPA,
        .p_paddr = BEAT_GPA,
        .p_filesz = bytes,
        .p_memsz = bytes,
    };
    memcpy(file.code, beat_code, sizeof(beat_code));
    memcpy(file.nonce, bench->nonce, NONCE_BYTES);
    file.newline = '\n';
    return write_file(path, &file, sizeof(file), error);
}

int recipe_beat(struct bench *bench, unsigned mem_mib, struct recipe *ret, struct thaw_error *error)
{
    *ret = (struct recipe){.kind = RECIPE_BEAT, .mem_mib = mem_mib};
    snprintf(ret->name, sizeof(ret->name), "beat-%u", mem_mib);
    int r = scratch_path(bench, "beat", ret->kernel, sizeof(ret->kernel), error);
    return r < 0 || access(ret->kernel, F_OK) == 0 ? r : write_beat(bench, ret->kernel, error);
}

int recipe_tick(struct bench *bench, const char *name, unsigned mem_mib, struct recipe *ret,
    struct thaw_error *error)
{
    *ret = (struct recipe){.kind = RECIPE_TICK, .mem_mib = mem_mib};
    snprintf(ret->name, sizeof(ret->name), "%s", name);
    snprintf(ret->kernel, sizeof(ret->kernel), "%.480s/tick", bench->guests_dir);
    snprintf(ret->cmdline, sizeof(ret->cmdline), "wait=spin interval=1 nonce=%.8s", bench->nonce);
    return access(ret->kernel, R_OK) == 0 ? 0 : bench_errno(error, "looking for %s", ret->kernel);
}

static int make_data(const struct bench *bench, const char *path, unsigned mib, unsigned seed,
    struct thaw_error *error)
{
    char seed_text[16], mib_text[16];
    pid_t pid;
    snprintf(seed_text, sizeof(seed_text), "%u", seed);
    snprintf(mib_text, sizeof(mib_text), "%u", mib);
    const char *const argv[] = {bench->data_tool, "-s", seed_text, "-o", path, mib_text, NULL};
    int r = scratch_spawn(argv, -1, NULL, &pid, error);
    return r < 0 ? r : scratch_wait(pid, 0, bench->data_tool, error);
}

static int use_data(struct bench *bench, struct recipe *recipe, struct thaw_error *error)
{
    char file[32];
    snprintf(file, sizeof(file), "data-%u", recipe->data_mib);
    int r = scratch_path(bench, file, recipe->initrd, sizeof(recipe->initrd), error);
    if (r < 0 || access(recipe->initrd, F_OK) == 0)
        return r;
    return make_data(bench, recipe->initrd, recipe->data_mib, bench->seed, error);
}

int recipe_memtouch(struct bench *bench, const char *name, const struct memtouch_options *options,
    struct recipe *ret, struct thaw_error *error)
{
    *ret = (struct recipe){
        .kind = RECIPE_MEMTOUCH,
        .mem_mib = options->mem_mib,
        .data_mib = options->data_mib,
        .ws_mib = options->ws_mib,
        .writes = options->writes,
    };
    snprintf(ret->name, sizeof(ret->name), "%s", name);
    snprintf(ret->kernel, sizeof(ret->kernel), "%.480s/memtouch", bench->guests_dir);
    snprintf(ret->cmdline, sizeof(ret->cmdline), "ws=%u op=%s order=%s rate=%u", options->ws_mib,
        options->writes ? "write" : "read", options->random ? "rand" : "seq", options->rate_mibs);
    return use_data(bench, ret, error);
}

int recipe_churn(struct bench *bench, const char *name, const struct memtouch_options *options,
    struct recipe *ret, struct thaw_error *error)
{
    *ret = (struct recipe){
        .kind = RECIPE_CHURN,
        .mem_mib = options->mem_mib,
        .data_mib = options->data_mib,
        .ws_mib = options->ws_mib,
    };
    snprintf(ret->name, sizeof(ret->name), "%s", name);
    snprintf(ret->kernel, sizeof(ret->kernel), "%.480s/churn", bench->guests_dir);
    snprintf(ret->cmdline, sizeof(ret->cmdline), "ws=%u", options->ws_mib);
    return use_data(bench, ret, error);
}

/* --- What they print -------------------------------------------------------------------------- */

/* The byte that a beat prints at a position. */
static char beat_byte(const struct bench *bench, uint32_t position)
{
    uint32_t count = position / BEAT_RECORD_BYTES + 1, at = position % BEAT_RECORD_BYTES;
    if (at < NONCE_BYTES)
        return bench->nonce[at];
    if (at == BEAT_RECORD_BYTES - 1)
        return '\n';
    return (char)(uint8_t)(count >> 8 * (at - NONCE_BYTES));
}

static int read_beat(const struct bench *bench, uint32_t from, const char *bytes, size_t count,
    uint32_t *ret_position, struct thaw_error *error)
{
    if (count < BEAT_RECORD_BYTES)
        return 0;
    for (uint32_t i = 0; i < BEAT_RECORD_BYTES; i++)
        if (bytes[i] != beat_byte(bench, from + i))
            return bench_fail(error, THAW_EGUEST,
                "the guest did not go on where it was: at byte %u, it should print 0x%02x and "
                "printed 0x%02x",
                from + i, (uint8_t)beat_byte(bench, from + i), (uint8_t)bytes[i]);
    *ret_position = from + BEAT_RECORD_BYTES;
    return 1;
}

/* layout.h says why. */
uint64_t recipe_sum(const struct bench *bench, uint64_t pages)
{
    return MEMTOUCH_MIX_STEP * (pages * (pages - 1) / 2 + pages * (bench->seed + 1));
}

static uint64_t expected_sum(const struct bench *bench, const struct recipe *recipe, uint64_t pass)
{
    uint64_t pages = (uint64_t)recipe->ws_mib * PAGES_PER_MIB;
    uint64_t sum = recipe_sum(bench, pages);
    return recipe->writes ? sum + pages * pass : sum;
}

static int read_pass(const struct bench *bench, const struct recipe *recipe, const char *line,
    uint32_t *ret_pass, struct thaw_error *error)
{
    unsigned long pass, pages, sum;
    if (sscanf(line, "memtouch: pass %lu pages %lu sum %lx", &pass, &pages, &sum) != 3)
        return bench_fail(error, THAW_EGUEST, "the guest printed '%.80s'", line);
    if (pages != (unsigned long)recipe->ws_mib * PAGES_PER_MIB ||
        sum != expected_sum(bench, recipe, pass))
        return bench_fail(
            error, THAW_EGUEST, "the guest's sum is wrong, so its memory is: '%.80s'", line);
    *ret_pass = (uint32_t)pass;
    return 1;
}

static int read_tick(
    const struct bench *bench, const char *line, uint32_t *ret_tick, struct thaw_error *error)
{
    unsigned long tick;
    char nonce[LINE_BYTES];
    if (sscanf(line, "tick %lu %s", &tick, nonce) != 2 || strcmp(nonce, bench->nonce) != 0)
        return bench_fail(error, THAW_EGUEST, "the guest printed '%.80s'", line);
    *ret_tick = (uint32_t)tick;
    return 1;
}

/* The order that it touched its pages in is its position, or the generation that it wrote. */
static int read_answer(const struct bench *bench, const struct recipe *recipe, const char *line,
    uint32_t *ret_position, struct thaw_error *error)
{
    unsigned long order = 0, pages, sum, generation;
    if (strncmp(line, "churn: ", 7) != 0 || strncmp(line, "churn: FAIL", 11) == 0)
        return bench_fail(error, THAW_EGUEST, "the guest printed '%.80s'", line);
    if (sscanf(line, "churn: touch %lu pages %lu sum %lx", &order, &pages, &sum) == 3 &&
        (pages != (unsigned long)recipe->ws_mib * PAGES_PER_MIB || sum != recipe_sum(bench, pages)))
        return bench_fail(
            error, THAW_EGUEST, "the guest's sum is wrong, so its memory is: '%.80s'", line);
    if (sscanf(line, "churn: burst %lu", &generation) == 1)
        order = generation;
    *ret_position = (uint32_t)order;
    return 1;
}

static int read_line(const struct bench *bench, const struct recipe *recipe, const char *bytes,
    const char *end, uint32_t *ret_number, struct thaw_error *error)
{
    char line[LINE_BYTES];
    snprintf(line, sizeof(line), "%.*s", (int)MIN(end - bytes, LINE_BYTES - 1), bytes);
    if (recipe->kind == RECIPE_CHURN)
        return read_answer(bench, recipe, line, ret_number, error);
    return recipe->kind == RECIPE_TICK ? read_tick(bench, line, ret_number, error)
                                       : read_pass(bench, recipe, line, ret_number, error);
}

static bool starts_with(const char *bytes, size_t count, const char *text)
{
    return count >= strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

/* Of guests that print lines: how the first begins, how all do, whether they are counted. */
static const struct style {
    const char *ready, *line;
    bool counted;
} styles[] = {
    [RECIPE_BEAT] = {"", "", false},
    [RECIPE_TICK] = {"tick: ready", "tick ", true},
    [RECIPE_MEMTOUCH] = {"memtouch: ready", "memtouch: ", true},
    [RECIPE_CHURN] = {"", "churn: ", false},
};

static int read_lines(const struct bench *bench, const struct recipe *recipe, uint32_t from,
    const char *bytes, size_t count, uint32_t *ret_position, struct thaw_error *error)
{
    const struct style *style = &styles[recipe->kind];
    uint32_t number;
    const char *end = memchr(bytes, '\n', count);
    if (end && ((style->ready[0] && starts_with(bytes, count, style->ready)) ||
                   (from == POSITION_UNKNOWN && !starts_with(bytes, count, style->line)))) {
        count -= (size_t)(end + 1 - bytes);
        bytes = end + 1;
        end = memchr(bytes, '\n', count);
    }
    if (!end)
        return 0;
    int r = read_line(bench, recipe, bytes, end, &number, error);
    if (r < 0)
        return r;
    if (style->counted && from != POSITION_UNKNOWN && number != from + 1)
        return bench_fail(
            error, THAW_EGUEST, "the guest went on with %u instead of %u", number, from + 1);
    *ret_position = number;
    return 1;
}

int recipe_read(const struct bench *bench, const struct recipe *recipe, uint32_t from,
    const char *bytes, size_t count, uint32_t *ret_position, struct thaw_error *error)
{
    return recipe->kind == RECIPE_BEAT
               ? read_beat(bench, from, bytes, count, ret_position, error)
               : read_lines(bench, recipe, from, bytes, count, ret_position, error);
}

int recipe_position(const struct bench *bench, const struct recipe *recipe, size_t total,
    const char *bytes, size_t count, uint32_t *ret_position, struct thaw_error *error)
{
    if (recipe->kind == RECIPE_BEAT) {
        *ret_position = (uint32_t)total;
        return 1;
    }
    const char *end = memrchr(bytes, '\n', count);
    if (!end)
        return 0;
    const char *before = memrchr(bytes, '\n', (size_t)(end - bytes));
    return read_line(bench, recipe, before ? before + 1 : bytes, end, ret_position, error);
}
