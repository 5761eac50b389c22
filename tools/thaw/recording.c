/* SPDX-License-Identifier: Apache-2.0 */
/* Role: when the recording of a working set ends, and what became of it.
 * Not here: what is recorded; that is the library's. */
#include "recording.h"
#include "vm_json.h"
#include <string.h>

void recording_begin(struct recording *recording)
{
    recording->active = recording->wanted = true;
}

void recording_end(struct recording *recording)
{
    struct thaw_recording result = {.size = sizeof(result)};
    struct thaw_error error = {0};

    if (!recording->active)
        return;
    recording->active = false;
    if (thaw_vm_record_end(recording->vm, &result, &error) < 0) {
        snprintf(recording->error, sizeof(recording->error), "%s", error.message);
        fprintf(stderr, "thaw: %s\n", error.message);
    }
    recording->pages = result.pages;
    recording->bytes = result.bytes;
}

/* True if the text is in the tail and what follows it; the new tail is what is too short to hold
 * it. */
static bool find_text(struct recording *recording, const char *bytes, size_t count)
{
    char both[RECORDING_TEXT_MAX + 4096];
    size_t wanted = strlen(recording->until);
    size_t total = recording->tail_count + count;
    size_t kept;

    memcpy(both, recording->tail, recording->tail_count);
    memcpy(both + recording->tail_count, bytes, count);
    if (memmem(both, total, recording->until, wanted))
        return true;
    kept = MIN(total, wanted - 1);
    memcpy(recording->tail, both + total - kept, kept);
    recording->tail_count = kept;
    return false;
}

static bool was_printed(struct recording *recording)
{
    char bytes[4096];
    uint64_t skipped;
    size_t count;

    while ((count = console_read(
                recording->console, &recording->console_pos, bytes, sizeof(bytes), &skipped)) > 0) {
        if (skipped)
            recording->tail_count = 0;
        if (find_text(recording, bytes, count))
            return true;
    }
    return false;
}

int recording_turn(struct recording *recording, bool running)
{
    int64_t left = 0;

    if (!recording->active)
        return -1;
    if (recording->until) {
        if (was_printed(recording))
            recording_end(recording);
        return -1;
    }
    if (!recording->deadline_ms && running)
        recording->deadline_ms = now_ms() + (int64_t)recording->seconds * 1000;
    if (!recording->deadline_ms)
        return -1;
    left = recording->deadline_ms - now_ms();
    if (left > 0)
        return (int)left;
    recording_end(recording);
    return -1;
}

json_t *recording_describe(const struct recording *recording)
{
    if (!recording->wanted)
        return json_null();
    return json_pack("{s:b, s:I, s:I, s:o}", "recording", (int)recording->active, "pages",
        (json_int_t)recording->pages, "bytes", (json_int_t)recording->bytes, "error",
        recording->error[0] ? vm_json_text(recording->error) : json_null());
}
