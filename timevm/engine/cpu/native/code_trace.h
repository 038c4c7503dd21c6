/* Which code ran, by marks of 64 bytes each; timevm/engine/cpu/code_trace.py reads them. */
#ifndef TIMEVM_CODE_TRACE_H
#define TIMEVM_CODE_TRACE_H

#include <stdint.h>

#define TRACE_GRANULE_SHIFT 6
#define TRACE_MASK ((1u << 19) - 1)

/* what is 32 MiB apart is laid elsewhere, so that kernel and modules do not meet */
static inline uint32_t trace_mark(uint64_t granule)
{
    return (uint32_t)(granule ^ granule >> 19 << 16) & TRACE_MASK;
}

/* a block of `size` bytes at `pc` runs (inlined.c does the same in translated code) */
static inline void trace_block(uint8_t *marks, uint64_t pc, uint32_t size)
{
    uint64_t first = pc >> TRACE_GRANULE_SHIFT, last = (pc + size - 1) >> TRACE_GRANULE_SHIFT;

    marks[trace_mark(first)] = 1;
    marks[trace_mark(last)] = 1;
    for (uint64_t granule = first + 1; granule < last; granule++)
        marks[trace_mark(granule)] = 1;
}

#endif
