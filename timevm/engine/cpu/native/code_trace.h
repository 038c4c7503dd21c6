/* Which code ran, by blocks: each that is translated gets a number, and sets its byte whenever it runs.
   timevm/engine/cpu/code_trace.py has the arrays and reads them. */
#ifndef TIMEVM_CODE_TRACE_H
#define TIMEVM_CODE_TRACE_H

#include <stdint.h>

/* what a block was translated from */
struct traced_block {
    uint64_t pc, size;
};

struct code_trace {
    uint8_t *ran;
    struct traced_block *blocks;
    uint64_t count, capacity;
};

/* a number for a block that is about to be translated; the last one is for all that find no other: they may be anything */
static inline uint64_t number_block(struct code_trace *trace)
{
    struct traced_block *block;

    if (trace->count == trace->capacity)
        return trace->capacity - 1;
    block = &trace->blocks[trace->count];
    block->pc = 0;
    block->size = trace->count + 1 == trace->capacity ? UINT64_MAX : 0;
    return trace->count++;
}

/* the block of this number has turned out to be so long */
static inline void place_block(struct code_trace *trace, uint64_t number, uint64_t pc, uint64_t size)
{
    if (number + 1 < trace->capacity) {
        trace->blocks[number].pc = pc;
        trace->blocks[number].size = size;
    }
}

#endif
