// SPDX-License-Identifier: Apache-2.0
// How a snapshot comes to be: begin, then commit or abort. The order of the steps is what recovery
// relies on; store.h lists it.

#include "store_internal.h"
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <thaw/version.h>
#include <time.h>

#define RANDOM_NAME_CHARS 6
#define RANDOM_NAME_TRIES 16
#define RECOVER_WAIT_MS   2000

struct store_creation {
    struct thaw_store *store;
    int fd, packs_fd;
    struct manifest identity; /* owns nothing */
    bool published; /* could be neither made durable nor taken back: still in snapshots/ */
};

const char *store_creation_id(const struct store_creation *creation)
{
    return creation->identity.id;
}

const char *store_creation_name(const struct store_creation *creation)
{
    return creation->identity.name;
}

int store_creation_dirfd(const struct store_creation *creation)
{
    return creation->fd;
}

int store_creation_packs_dirfd(const struct store_creation *creation)
{
    return creation->packs_fd;
}

static void free_creation(struct store_creation *creation)
{
    if (creation->packs_fd >= 0)
        close(creation->packs_fd);
    store_unlock(&creation->fd);
    store_unref(creation->store);
    free(creation);
}

int store_write_manifest(int dirfd, const struct manifest *m, struct thaw_error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t bytes;
    int r = manifest_encode(m, &text, &bytes, error);
    if (r < 0)
        return r;
    r = fs_write_file(dirfd, "manifest.json", text, bytes);
    if (r == 0)
        r = fs_sync(dirfd);
    return r < 0 ? error_errno(error, -r, "snapshot %s: writing manifest.json", m->id) : 0;
}

/* Begin */

static int set_label(
    char ret[MANIFEST_LABEL_BYTES], const char *label, const char *what, struct thaw_error *error)
{
    if (!label)
        label = "";
    if (!manifest_label_valid(label))
        return error_set(error, -EINVAL, "a %s has at most %d bytes, none of them control", what,
            MANIFEST_LABEL_BYTES - 1);
    memcpy(ret, label, strlen(label) + 1);
    return 0;
}

static int set_identity(
    struct manifest *m, const struct store_request *request, struct thaw_error *error)
{
    struct timespec now;
    int r = set_label(m->template_name, request->template_name, "template's name", error);
    if (r == 0)
        r = set_label(m->source, request->source, "source's name", error);
    if (r < 0)
        return r;
    if (request->name && !manifest_name_valid(request->name))
        return error_set(error, -EINVAL,
            "'%.80s' cannot be a snapshot's name: it begins with a letter or digit, has at most %d "
            "letters, digits, '.', '_', '-', and does not look like an id",
            request->name, MANIFEST_NAME_CHARS);
    if (request->name)
        memcpy(m->name, request->name, strlen(request->name) + 1);
    r = fs_random_hex(m->id, MANIFEST_ID_CHARS);
    if (r < 0)
        return error_errno(error, -r, "making an id");
    clock_gettime(CLOCK_REALTIME, &now);
    m->created_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    snprintf(m->producer, sizeof(m->producer), "thaw %s", thaw_version());
    return 0;
}

/* "<template>-<random>" from a template that may have characters which names may not have. */
static int invent_name(struct manifest *m)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz012345";
    unsigned char random[RANDOM_NAME_CHARS];
    size_t room = MANIFEST_NAME_CHARS - RANDOM_NAME_CHARS - 1, used = 0;
    const char *from = m->template_name[0] ? m->template_name : "snapshot";
    for (; *from && used < room; from++) {
        m->name[used] = *from;
        m->name[used + 1] = '\0';
        if (!manifest_name_valid(m->name))
            m->name[used] = used ? '-' : 'x';
        used++;
    }
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return -errno;
    m->name[used++] = '-';
    for (size_t i = 0; i < sizeof(random); i++)
        m->name[used++] = alphabet[random[i] % (sizeof(alphabet) - 1)];
    m->name[used] = '\0';
    return 0;
}

static int make_directory(struct store_creation *c, struct thaw_error *error)
{
    const struct thaw_store *store = c->store;
    int parent = store->places[STORE_CREATING];
    const char *id = c->identity.id;
    int r = mkdirat(parent, id, STORE_DIR_MODE) < 0 ? -errno : 0;
    if (r == 0) {
        c->fd = fs_open_dir(parent, id);
        r = c->fd < 0 ? c->fd : store_try_lock(c->fd, LOCK_EX);
    }
    if (r == 0 && mkdirat(c->fd, "packs", STORE_DIR_MODE) < 0)
        r = -errno;
    if (r == 0) {
        c->packs_fd = fs_open_dir(c->fd, "packs");
        r = c->packs_fd < 0 ? c->packs_fd : fs_sync(parent);
    }
    return r < 0 ? error_errno(error, -r, "making %s/creating/%s", store->path, id) : 0;
}

/* -EEXIST without a message if the name refers to nothing any more. */
static int refuse_name(const struct thaw_store *store, const char *name, struct thaw_error *error)
{
    char target[MANIFEST_ID_BYTES];
    enum store_place place;
    int r = fs_read_link(store->places[STORE_NAMES], name, target, sizeof(target));
    if (r == -ENOENT ||
        (r == 0 && manifest_id_valid(target) && store_locate(store, target, &place) == -ENOENT))
        return -EEXIST;
    if (r < 0 || !manifest_id_valid(target))
        return error_set(error, -EEXIST,
            "name '%s' is taken by something that is not a snapshot: %s/names/%s", name,
            store->path, name);
    return error_set(error, -EEXIST, "name '%s' is in use by snapshot %s%s", name, target,
        place == STORE_CREATING ? ", which is being created" : "");
}

static int take_name(struct store_creation *c, struct thaw_error *error)
{
    const struct manifest *m = &c->identity;
    int names = c->store->places[STORE_NAMES];
    int r = store_write_manifest(c->fd, m, error);
    if (r < 0)
        return r;
    if (symlinkat(m->id, names, m->name) < 0)
        return errno == EEXIST ? -EEXIST
                               : error_errno(error, errno, "reserving the name '%s'", m->name);
    r = fs_sync(names);
    if (r < 0) {
        unlinkat(names, m->name, 0);
        return error_errno(error, -r, "reserving the name '%s'", m->name);
    }
    return 0;
}

static int reserve_name(struct store_creation *c, bool invent, struct thaw_error *error)
{
    int r = -EEXIST;
    for (int i = 0; invent && r == -EEXIST && i < RANDOM_NAME_TRIES; i++) {
        r = invent_name(&c->identity);
        if (r < 0)
            return error_errno(error, -r, "inventing a name");
        r = take_name(c, error);
    }
    if (!invent)
        r = take_name(c, error);
    if (r == -EEXIST)
        r = refuse_name(c->store, c->identity.name, error);
    return r;
}

/* Takes back what was never accepted. What fails here, recovery does. */
static void discard(struct store_creation *c)
{
    if (c->fd >= 0)
        fs_remove_dir(c->store->places[STORE_CREATING], c->identity.id, c->fd);
    else
        unlinkat(c->store->places[STORE_CREATING], c->identity.id, AT_REMOVEDIR);
}

static int try_begin(struct store_creation *c, bool invent, struct thaw_error *error)
{
    _cleanup_unlock_ int lock = -1;
    struct stat st;
    int r = store_lock(c->store, LOCK_SH, 0, &lock, error);
    if (r < 0)
        return r;
    /* The usual case of a duplicate is found before anything is made. */
    if (!invent &&
        fstatat(c->store->places[STORE_NAMES], c->identity.name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return refuse_name(c->store, c->identity.name, error);
    r = make_directory(c, error);
    if (r == 0)
        r = reserve_name(c, invent, error);
    if (r < 0)
        discard(c);
    return r;
}

static int begin(struct thaw_store *store, const struct store_request *request,
    struct store_creation **ret, struct thaw_error *error)
{
    struct store_creation *c = calloc(1, sizeof(*c));
    if (!c)
        return error_errno(error, ENOMEM, "allocating a creation");
    c->store = store_ref(store);
    c->fd = c->packs_fd = -1;
    int r = set_identity(&c->identity, request, error);
    if (r == 0)
        r = try_begin(c, !request->name, error);
    if (r < 0)
        free_creation(c);
    else
        *ret = c;
    return r;
}

int store_begin(struct thaw_store *store, const struct store_request *request,
    struct store_creation **ret, struct thaw_error *error)
{
    struct thaw_error local = {0};
    int r = begin(store, request, ret, &local);
    if (r == -EEXIST && local.code == 0) {
        /* A name that refers to nothing: left by a crash, and recovery's to remove. */
        r = store_recover(store, RECOVER_WAIT_MS, true, NULL, &local);
        if (r == 0)
            r = begin(store, request, ret, &local);
        if (r == -EEXIST && local.code == 0)
            error_set(&local, r, "name '%s' is just being given to others",
                request->name ? request->name : "");
    }
    if (r < 0 && error)
        *error = local;
    return r;
}

/* Packs of ancestors */

int store_link_pack(struct store_creation *creation, int source_dirfd, const char *pack_id,
    struct thaw_error *error)
{
    struct stat st;
    if (!manifest_id_valid(pack_id))
        return error_set(error, -EINVAL, "'%.80s' is not a pack's id", pack_id);
    _cleanup_close_ int from = fs_open_dir(source_dirfd, "packs");
    int to = creation->packs_fd;
    int r = from < 0 ? from : 0;
    if (r == 0 && linkat(from, pack_id, to, pack_id, 0) < 0)
        r = -errno;
    if (r == -EXDEV || r == -EPERM || r == -EMLINK)
        r = fs_copy(from, to, pack_id);
    else if (r == 0 &&
             (fstatat(to, pack_id, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))) {
        unlinkat(to, pack_id, 0);
        r = -EINVAL;
    }
    return r < 0 ? error_errno(error, -r, "linking pack %s into snapshot %s", pack_id,
                       creation->identity.id)
                 : 0;
}

/* Commit */

struct check_walk {
    const struct manifest *m;
    struct thaw_error *error;
    int dirfd;
    const char *prefix;
    size_t found;
};

static int check_file(void *data, const char *name)
{
    struct check_walk *walk = data;
    const struct manifest *m = walk->m;
    char path[sizeof("packs/") + NAME_MAX];
    struct stat st;
    if (!walk->prefix[0] && (strcmp(name, "packs") == 0 || strcmp(name, "manifest.json") == 0))
        return 0;
    snprintf(path, sizeof(path), "%s%s", walk->prefix, name);
    const struct manifest_file *file = manifest_find_file(m, path);
    if (!file)
        return error_set(
            walk->error, -EINVAL, "snapshot %s: %.80s is not in its manifest", m->id, path);
    _cleanup_close_ int fd =
        openat(walk->dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_errno(walk->error, errno, "snapshot %s: opening %s", m->id, path);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != file->bytes)
        return error_set(walk->error, -EINVAL, "snapshot %s: %s is not a file of %llu bytes", m->id,
            path, (unsigned long long)file->bytes);
    walk->found++;
    int r = fs_sync(fd);
    return r < 0 ? error_errno(walk->error, -r, "snapshot %s: making %s durable", m->id, path) : 0;
}

int store_check_files(int dirfd, const struct manifest *m, struct thaw_error *error)
{
    struct thaw_error local = {0};
    struct check_walk walk = {.m = m, .error = &local, .dirfd = dirfd, .prefix = ""};
    _cleanup_close_ int packs = fs_open_dir(dirfd, "packs");
    int r = packs < 0 ? packs : fs_each(dirfd, check_file, &walk);
    if (r == 0) {
        walk.dirfd = packs;
        walk.prefix = "packs/";
        r = fs_each(packs, check_file, &walk);
    }
    if (r == 0)
        r = fs_sync(packs);
    if (r < 0 && local.code == 0)
        error_errno(&local, -r, "snapshot %s: making its files durable", m->id);
    if (r == 0 && walk.found != m->file_count)
        r = error_set(&local, -EINVAL, "snapshot %s: it has %zu of the %zu files in its manifest",
            m->id, walk.found, m->file_count);
    if (r < 0 && error)
        *error = local;
    return r;
}

int store_move(
    const struct thaw_store *store, const char *id, enum store_place from, enum store_place to)
{
    int source = store->places[from], target = store->places[to];
    int r = fs_move(source, target, id);
    if (r < 0)
        return r;
    r = fs_sync(target);
    int s = fs_sync(source);
    if (r == 0 && s == 0)
        return 0;
    fs_move(target, source, id);
    return r < 0 ? r : s;
}

static void fill_identity(const struct store_creation *c, struct manifest *m)
{
    const struct manifest *identity = &c->identity;
    m->complete = true;
    m->created_ns = identity->created_ns;
    memcpy(m->id, identity->id, sizeof(m->id));
    memcpy(m->name, identity->name, sizeof(m->name));
    memcpy(m->source, identity->source, sizeof(m->source));
    memcpy(m->template_name, identity->template_name, sizeof(m->template_name));
    memcpy(m->producer, identity->producer, sizeof(m->producer));
}

static int publish(struct store_creation *c, struct manifest *m, struct thaw_error *error)
{
    _cleanup_unlock_ int lock = -1;
    int r = store_check_files(c->fd, m, error);
    if (r == 0)
        r = store_write_manifest(c->fd, m, error);
    if (r == 0)
        r = store_lock(c->store, LOCK_SH, 0, &lock, error);
    if (r < 0)
        return r;
    /* The directory's lock is kept until the move is durable, so nobody reads what may yet be
     * taken back. */
    r = store_move(c->store, m->id, STORE_CREATING, STORE_SNAPSHOTS);
    if (r == 0)
        return 0;
    c->published = fs_is_at(c->store->places[STORE_SNAPSHOTS], m->id, c->fd);
    return error_errno(error, -r, "publishing snapshot %s", m->id);
}

int store_mark_failed(int dirfd, const char *text)
{
    int r = fs_write_file(dirfd, "error", text, strnlen(text, STORE_ERROR_BYTES - 1));
    return r < 0 ? r : fs_sync(dirfd);
}

int store_commit(
    struct store_creation *creation, struct manifest *manifest, struct thaw_error *error)
{
    struct thaw_error local = {0};
    fill_identity(creation, manifest);
    int r = publish(creation, manifest, &local);
    if (r == 0) {
        free_creation(creation);
        return 0;
    }
    /* From here on it must not be published, also not by recovery should this process die. */
    if (!creation->published)
        store_mark_failed(creation->fd, local.message);
    if (error)
        *error = local;
    return r;
}

/* Abort */

int store_fail(const struct thaw_store *store, const char *id, int fd, const char *text,
    struct thaw_error *error)
{
    static const char *const keep[] = {"manifest.json", "error", NULL};
    char present[STORE_ERROR_BYTES];
    /* On a full disk there is room for the mark only after the data is gone. */
    bool marked = store_read_error(fd, present) == 0 || store_mark_failed(fd, text) == 0;
    int r = fs_remove_below(fd, keep);
    if (r == 0 && !marked)
        r = store_mark_failed(fd, text);
    if (r == 0)
        r = store_release_names(store, id);
    if (r == 0)
        r = fs_sync(fd);
    if (r == 0)
        r = store_move(store, id, STORE_CREATING, STORE_FAILED);
    return r < 0 ? error_errno(error, -r, "snapshot %s: clearing away what is left of it", id) : 0;
}

/* Tries once more to take back a publication. What is in snapshots/ must not lose any of its data:
 * better whole there than half. */
static int retract(struct store_creation *c, struct thaw_error *error)
{
    const int *places = c->store->places;
    int r =
        c->published ? fs_move(places[STORE_SNAPSHOTS], places[STORE_CREATING], c->identity.id) : 0;
    return r < 0 ? error_errno(error, -r,
                       "snapshot %s is complete but may not survive a power failure; delete it. "
                       "Taking it back",
                       c->identity.id)
                 : 0;
}

int store_abort(struct store_creation *creation, const char *text, struct thaw_error *error)
{
    if (!creation)
        return 0;
    _cleanup_unlock_ int lock = -1;
    int r = store_lock(creation->store, LOCK_SH, 0, &lock, error);
    if (r == 0)
        r = retract(creation, error);
    if (r == 0)
        r = store_fail(creation->store, creation->identity.id, creation->fd,
            text && text[0] ? text : "given up", error);
    store_unlock(&lock);
    free_creation(creation);
    return r;
}
