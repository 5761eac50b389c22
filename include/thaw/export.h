/* SPDX-License-Identifier: Apache-2.0 */
/* THAW_API marks what the shared library exports; all else is hidden. */
#ifndef THAW_EXPORT_H
#define THAW_EXPORT_H

#if defined(__GNUC__)
#define THAW_API __attribute__((visibility("default")))
#else
#define THAW_API
#endif

#endif
