/* SPDX-License-Identifier: Apache-2.0 */
/* Role: find small guests by name.
 * Not here: what a guest is, which the library finds out when it loads one. */
#include "guests.h"
#include "fail.h"
#include "text.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* The i-th directory to look in, in a string that the caller frees; NULL: there are no more. */
static char *guests_dir(int i)
{
    const char *explicit_dir = getenv("THAW_GUESTS");
    char exe[PATH_MAX], *slash, *dir = NULL;
    ssize_t count;

    if (explicit_dir && *explicit_dir)
        return i == 0 ? strdup(explicit_dir) : NULL;
    if (i == 1)
        return strdup(THAW_GUESTS_DIR);
    if (i > 1)
        return NULL;
    count = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (count < 0)
        return strdup(THAW_GUESTS_DIR);
    exe[count] = '\0';
    slash = strrchr(exe, '/');
    if (slash)
        *slash = '\0';
    return asprintf(&dir, "%s/guests", exe) < 0 ? NULL : dir;
}

static bool is_guest(const char *dir, const char *name, char **ret_path)
{
    struct stat st;
    char *path;
    bool found;

    if (!text_is_name(name) || asprintf(&path, "%s/%s", dir, name) < 0)
        return false;
    found = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    if (found && ret_path)
        *ret_path = realpath(path, NULL);
    free(path);
    return found;
}

static int any(const struct dirent *entry)
{
    return text_is_name(entry->d_name);
}

/* Appends the names of the guests in dir. */
static void list_guests(const char *dir, char *text, size_t text_bytes)
{
    struct dirent **entries;
    int count = scandir(dir, &entries, any, alphasort);

    for (int i = 0; i < count; i++) {
        size_t used = strlen(text);

        if (is_guest(dir, entries[i]->d_name, NULL))
            snprintf(
                text + used, text_bytes - used, "%s%.64s", used ? ", " : "", entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

int guests_find(const char *name, char **ret_path, struct thaw_error *error)
{
    char known[256] = "", places[200] = "";
    char *dir;

    for (int i = 0; (dir = guests_dir(i)); i++) {
        char *path = NULL;
        size_t used = strlen(places);
        bool found = is_guest(dir, name, &path);

        if (!found) {
            list_guests(dir, known, sizeof(known));
            snprintf(places + used, sizeof(places) - used, "%s'%s'", used ? " and " : "", dir);
        }
        free(dir);
        if (found) {
            if (!path)
                return fail_errno(error, errno, "cannot find guest '%s'", name);
            *ret_path = path;
            return 0;
        }
    }
    if (!*known)
        return fail_set(error, -ENOENT, "unknown guest '%s': no guests found in %s", name, places);
    return fail_set(error, -ENOENT, "unknown guest '%s': there are %s", name, known);
}
