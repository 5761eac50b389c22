/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a snapshot says about itself: plain data here, JSON in <snapshot>/manifest.json. The text is
 * untrusted input. It carries a digest over all of its own content, so that a change of any byte is
 * either found or of no consequence; docs/store.md is normative.
 */
#ifndef SNAPSHOT_MANIFEST_H
#define SNAPSHOT_MANIFEST_H

#include "error.h"
#include <jansson.h>

#define MANIFEST_FORMAT        "thaw-snapshot"
#define MANIFEST_VERSION_MAJOR 1
#define MANIFEST_VERSION_MINOR 0

/* Limits of the text, checked before it is parsed. */
#define MANIFEST_BYTES_MAX  (4u << 20)
#define MANIFEST_DEPTH_MAX  16
#define MANIFEST_VALUES_MAX 65536

/* Limits of what is in it. The _BYTES of strings include the terminating NUL. */
#define MANIFEST_ID_CHARS           32 /* lower-case hexadecimal */
#define MANIFEST_ID_BYTES           (MANIFEST_ID_CHARS + 1)
#define MANIFEST_NAME_CHARS         64 /* [A-Za-z0-9][A-Za-z0-9._-]*, and not an id */
#define MANIFEST_NAME_BYTES         (MANIFEST_NAME_CHARS + 1)
#define MANIFEST_LABEL_BYTES        65 /* any text without control characters */
#define MANIFEST_PATH_BYTES         (sizeof("packs/") + MANIFEST_NAME_CHARS)
#define MANIFEST_DIGEST_BYTES       (sizeof("xxh3-128:") + 32)
#define MANIFEST_BASE_PATH_BYTES    4096
#define MANIFEST_STRINGS_MAX        64
#define MANIFEST_DISKS_MAX          32
#define MANIFEST_CPUID_MAX          256
#define MANIFEST_FILES_MAX          512
#define MANIFEST_PACKS_MAX          256
#define MANIFEST_STATS_MAX          64
#define MANIFEST_METADATA_BYTES_MAX (64u << 10)
#define MANIFEST_METADATA_DEPTH_MAX 12
#define MANIFEST_VCPUS_MAX          1024
#define MANIFEST_MEM_BYTES_MAX      ((uint64_t)1 << 46)
#define MANIFEST_SIZE_MAX           ((uint64_t)INT64_MAX) /* JSON integers are signed here */

enum manifest_kind {
    MANIFEST_FULL = 0,
    MANIFEST_DIFF = 1, /* made from a parent; complete all the same */
};

/* A list of names: features, devices, overrides. */
struct manifest_strings {
    char (*items)[MANIFEST_LABEL_BYTES];
    size_t count; /* at most MANIFEST_STRINGS_MAX */
};

struct manifest_disk {
    uint64_t bytes;
    bool read_only;
    char *base_path; /* where the base image was when the snapshot was made */
    uint64_t base_bytes;
    uint64_t base_mtime_ns;
    char base_identity[MANIFEST_LABEL_BYTES]; /* a tagged digest, or empty */
};

struct manifest_cpuid {
    uint32_t leaf, subleaf, eax, ebx, ecx, edx;
};

struct manifest_file {
    char path[MANIFEST_PATH_BYTES]; /* "<name>" or "packs/<name>" */
    uint64_t bytes;
    char digest[MANIFEST_DIGEST_BYTES]; /* of the file's content */
};

struct manifest_pack {
    char id[MANIFEST_ID_BYTES]; /* its file is packs/<id> */
    uint64_t bytes;
    uint64_t live_bytes; /* how much of it this snapshot uses */
    bool own;            /* written for this snapshot, not linked from an ancestor */
};

struct manifest_stat {
    char name[MANIFEST_LABEL_BYTES];
    uint64_t value;
};

struct manifest {
    uint32_t version_major, version_minor; /* set by manifest_decode */

    /* Who it is: known from the moment the work is accepted. */
    bool complete; /* false: only these identity members are there */
    char id[MANIFEST_ID_BYTES];
    char name[MANIFEST_NAME_BYTES];
    char source[MANIFEST_LABEL_BYTES];        /* the VM's name */
    char template_name[MANIFEST_LABEL_BYTES]; /* what the VM was created from */
    char producer[MANIFEST_LABEL_BYTES];      /* "thaw 0.1.0" */
    uint64_t created_ns;                      /* since 1970, UTC */

    /* What it is. */
    enum manifest_kind kind;
    char parent[MANIFEST_ID_BYTES]; /* empty: none. The parent need not exist any more */
    struct manifest_strings incompatible, ignorable; /* features */
    struct manifest_strings overrides;               /* what restore may replace */

    /* The machine. */
    uint32_t vcpu_count;
    uint64_t mem_bytes;
    struct manifest_disk *disks;
    size_t disk_count;
    struct manifest_strings devices;

    /* What it needs of a host. */
    char cpu_vendor[MANIFEST_LABEL_BYTES];
    uint32_t cpu_family, cpu_model, cpu_stepping;
    uint32_t tsc_khz;
    char kvm_backend[MANIFEST_LABEL_BYTES];
    struct manifest_cpuid *cpuid;
    size_t cpuid_count;

    struct manifest_file *files; /* all of the directory but manifest.json itself */
    size_t file_count;
    struct manifest_pack *packs;
    size_t pack_count;
    struct manifest_stat *stats; /* for people; nothing depends on them */
    size_t stat_count;
    char *metadata; /* the control plane's JSON object, echoed; NULL: {} */
};

/* Frees what *m points to and zeroes it. The arrays were made with malloc. NULL is allowed. */
void manifest_fini(struct manifest *m);

/* Makes the text, digest included. *ret_text is malloced and followed by a NUL that *ret_bytes does
 * not count. What is produced has passed manifest_decode: -EINVAL names what is not valid. */
int manifest_encode(
    const struct manifest *m, char **ret_text, size_t *ret_bytes, struct thaw_error *error);

/* What manifest_encode makes text of, digest included. *ret_root is a new reference. */
int manifest_to_json(const struct manifest *m, json_t **ret_root, struct thaw_error *error);

/* Checks everything and fills *ret, which the caller then passes to manifest_fini. THAW_ECORRUPT
 * where the text is damaged or against the rules, -EOPNOTSUPP where it is of a version or has an
 * incompatible feature that this library does not know (named in the message), -ENOMEM. Any
 * thread; needs little stack whatever the text. */
int manifest_decode(struct manifest *ret, const char *text, size_t bytes, struct thaw_error *error);

/* The entry of a file, or NULL. Borrowed from m. */
const struct manifest_file *manifest_find_file(const struct manifest *m, const char *path);

/* Grammars. NULL is not valid. */
bool manifest_id_valid(const char *id);
bool manifest_name_valid(const char *name);
bool manifest_label_valid(const char *label); /* UTF-8 is not checked here */
bool manifest_path_valid(const char *path);
bool manifest_digest_valid(const char *digest);

/* "xxh3-128:<hex>" of a hash in its canonical (big-endian) form. */
void manifest_format_digest(const uint8_t canonical[16], char ret[MANIFEST_DIGEST_BYTES]);

/* Whether a text can be a snapshot's metadata: a JSON object within the limits above. -EINVAL says
 * why not; -ENOMEM. */
int manifest_check_metadata(const char *text, struct thaw_error *error);

/* The compact text of metadata, malloced; -EINVAL if it is too large or too deeply nested, -ENOMEM.
 * For this file's two halves. */
int manifest_metadata_text(const json_t *metadata, char **ret_text, struct thaw_error *error);

/* Whether JSON text is within the limits that bound a parser's recursion and memory; its syntax is
 * not judged. THAW_ECORRUPT if not. */
int manifest_check_shape(const char *text, size_t bytes, struct thaw_error *error);

/* Whether a parser's error, zeroed before, is one of syntax: for memory that it lacked, it mostly
 * has no words. */
bool manifest_is_syntax(const json_error_t *problem);

/* The digest that belongs into root's member "digest": over the compact dump with sorted keys of
 * everything but that member. For this file's two halves, and for tests. */
int manifest_json_digest(const json_t *root, char ret[MANIFEST_DIGEST_BYTES]);

#endif
