/* SPDX-License-Identifier: Apache-2.0 */
/* A table for people: columns as wide as what is in them. */
#ifndef TOOLS_TABLE_H
#define TOOLS_TABLE_H

#include <stddef.h>

#define TABLE_COLUMNS_MAX 12

struct table;

/* head has `columns` texts. NULL if memory is short. */
struct table *table_new(const char *const *head, size_t columns);
void table_free(struct table *table); /* NULL is allowed */

/* Appends a row of copies of as many texts as the head has. -ENOMEM. */
int table_add(struct table *table, const char *const *cells);

/* Prints head and rows on stdout, without blanks at the ends of lines. */
void table_print(const struct table *table);

#endif
