/* SPDX-License-Identifier: Apache-2.0 */
/* Role: find and open the store.
 * Not here: what is in it, which is the library's. */
#include "storage.h"
#include "fail.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

static int default_path(char **ret, struct thaw_error *error)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int rc;

    if (geteuid() == 0)
        rc = asprintf(ret, "/var/lib/thaw");
    else if (data && *data == '/')
        rc = asprintf(ret, "%s/thaw", data);
    else if (home && *home == '/')
        rc = asprintf(ret, "%s/.local/share/thaw", home);
    else
        return fail_set(error, -ENOENT, "no place for a store: use --store or set HOME");
    return rc < 0 ? fail_errno(error, ENOMEM, "cannot name the store") : 0;
}

int storage_path(const char *given, char **ret, struct thaw_error *error)
{
    char here[PATH_MAX];

    if (!given)
        return default_path(ret, error);
    if (*given == '/')
        *here = '\0';
    else if (!getcwd(here, sizeof(here)))
        return fail_errno(error, errno, "cannot find the store '%s'", given);
    if (asprintf(ret, "%s%s%s", here, *here ? "/" : "", given) < 0)
        return fail_errno(error, ENOMEM, "cannot name the store");
    return 0;
}

int storage_open_path(const char *path, bool create, thaw_store **ret, struct thaw_error *error)
{
    struct thaw_store_options options = {
        .size = sizeof(options), .path = path, .flags = create ? THAW_STORE_CREATE : 0};
    int rc = thaw_store_open(&options, ret, error);

    if (rc == -ENOENT && !create && access(path, F_OK) != 0)
        return fail_set(
            error, rc, "there is no store at '%s' yet: the first snapshot makes it", path);
    return rc;
}

int storage_open(const struct cli *cli, thaw_store **ret, struct thaw_error *error)
{
    _cleanup_free_ char *path = NULL;
    int rc = storage_path(cli->store, &path, error);

    return rc < 0 ? rc : storage_open_path(path, false, ret, error);
}

bool storage_is_unused(const struct cli *cli)
{
    _cleanup_free_ char *path = NULL;
    const struct dirent *entry;
    bool empty = true;
    DIR *dir;

    if (storage_path(cli->store, &path, NULL) < 0)
        return false;
    dir = opendir(path);
    if (!dir)
        return errno == ENOENT;
    while (empty && (entry = readdir(dir)))
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(dir);
    return empty;
}
