/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THAW_VERSION_H
#define THAW_VERSION_H

#include <thaw/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of these headers; CMakeLists.txt reads it from here. */
#define THAW_VERSION_MAJOR 0
#define THAW_VERSION_MINOR 1
#define THAW_VERSION_PATCH 0

/* The version of the library that is linked, as "major.minor.patch". Any thread. */
THAW_API const char *thaw_version(void);

#ifdef __cplusplus
}
#endif
#endif
