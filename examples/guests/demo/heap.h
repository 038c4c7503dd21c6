/* A first-fit heap of cells, each behind a header; the cells follow each other without a gap. */
#ifndef HEAP_H
#define HEAP_H

#include <stddef.h>
#include <stdint.h>

struct cell {
    uint32_t size;  /* bytes of the contents, a multiple of 16; the lowest bit says that the cell is in use */
    uint32_t guard; /* CELL_GUARD ^ size, so that a header that was overwritten is recognised */
    uint64_t owner; /* whom it was given to, as the heap's user says; 0 when free */
    uint8_t contents[];
};

#define CELL_GUARD 0x7e11a11cu

void heap_start(void);

/* At least `size` bytes, or NULL when there is no room. */
void *heap_take(size_t size, uint64_t owner);

void heap_give_back(void *contents);

/* Bytes in use and free, headers not counted. */
void heap_usage(size_t *used, size_t *unused);

/* The first cell whose header is damaged, or NULL; `number` is its place in the heap, counted from 0. */
const struct cell *heap_damaged(unsigned *number);

#endif
