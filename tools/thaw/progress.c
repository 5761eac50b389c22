/* SPDX-License-Identifier: Apache-2.0 */
/* Role: draw a progress bar.
 * Not here: where the numbers come from (job.c, cmd_snapshot.c). */
#include "progress.h"
#include "terminal.h"
#include "text.h"
#include <string.h>

#define BAR_COLUMNS 24

void progress_format(const char *title, const char *phase, uint64_t done_bytes,
    uint64_t total_bytes, size_t width, char *ret, size_t ret_bytes)
{
    char done[TEXT_BYTES], total[TEXT_BYTES], bar[BAR_COLUMNS + 1];

    text_format_size(done_bytes, done);
    text_format_size(total_bytes, total);
    if (total_bytes == 0) {
        snprintf(ret, ret_bytes, "%s  %s  %s", title, done, phase);
    } else {
        double part = MIN((double)done_bytes / (double)total_bytes, 1.0);
        size_t full = (size_t)(part * BAR_COLUMNS);

        memset(bar, '#', full);
        memset(bar + full, '-', BAR_COLUMNS - full);
        bar[BAR_COLUMNS] = '\0';
        snprintf(ret, ret_bytes, "%s  [%s] %3u%%  %s of %s  %s", title, bar,
            (unsigned)(part * 100.0), done, total, phase);
    }
    if (width < ret_bytes)
        ret[width] = '\0';
}

void progress_draw(
    struct progress *progress, const char *phase, uint64_t done_bytes, uint64_t total_bytes)
{
    char line[256];

    if (!isatty(STDERR_FILENO))
        return;
    /* The last column stays free: to write there moves some terminals to the next line. */
    progress_format(progress->title, phase, done_bytes, total_bytes,
        terminal_width(STDERR_FILENO, 80) - 1, line, sizeof(line));
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
    progress->drawn = true;
}

void progress_clear(struct progress *progress)
{
    if (progress->drawn)
        fprintf(stderr, "\r\033[K");
    progress->drawn = false;
}
