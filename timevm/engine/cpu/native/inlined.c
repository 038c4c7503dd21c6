/* The count of a block, written into its translation. */
#include "inlined.h"

/* operations, a type and a condition of the translator */
enum {
    SET_LABEL = 1,
    MOVE_CONSTANT = 64, /* movi_i64 */
    LOAD = 73,          /* ld_i64: variable, base, offset */
    STORE_BYTE = 74,    /* st8_i64 */
    STORE = 77,         /* st_i64 */
    SUBTRACT = 79       /* sub_i64 */
};
enum { TYPE_I64 = 1 };
enum { AT_LEAST = 3 }; /* signed */

struct generator generator;

/* the block that this thread is translating, so far as it is not known before its end */
static _Thread_local struct {
    void *context; /* NULL: none */
    struct operation *count, *note, *pc, *size; /* NULL: its hook is called and counts it */
    struct code_trace *trace;
    uint64_t number;
} unfinished;

EXPORT void timevm_set_generator(const struct generator *given)
{
    generator = *given;
}

static struct operation *emit(void *context, unsigned number, const void *first, uint64_t second, uint64_t third)
{
    struct operation *operation = generator.emit(context, number);

    operation->arguments[0] = (uintptr_t)first;
    operation->arguments[1] = second;
    operation->arguments[2] = third;
    return operation;
}

static void *new_variable(void *context)
{
    return generator.new_variable(context, TYPE_I64, 0);
}

static struct operation *emit_constant(void *context, uint64_t value)
{
    return emit(context, MOVE_CONSTANT, new_variable(context), value, 0);
}

static void *result_of(const struct operation *operation)
{
    return (void *)(uintptr_t)operation->arguments[0];
}

/* variables do not outlive the branch: what the call needs is made behind it */
static void emit_rare_call(void *context, void *hook, uint64_t user)
{
    void *arguments[4];

    arguments[0] = result_of(emit_constant(context, 0));
    arguments[1] = result_of(unfinished.pc = emit_constant(context, 0));
    arguments[2] = result_of(unfinished.size = emit_constant(context, 0));
    arguments[3] = result_of(emit_constant(context, user));
    generator.call(context, hook, 0, 4, arguments);
    for (unsigned i = 0; i < 4; i++)
        generator.free_variable(context, arguments[i]);
}

static void inline_mark(void *context, struct code_trace *trace)
{
    unfinished.context = context;
    unfinished.trace = trace;
    if (trace) {
        void *one = result_of(emit_constant(context, 1)), *place;

        unfinished.number = number_block(trace);
        place = result_of(emit_constant(context, (uintptr_t)(trace->ran + unfinished.number)));
        emit(context, STORE_BYTE, one, (uintptr_t)place, 0);
        generator.free_variable(context, one);
        generator.free_variable(context, place);
    }
}

void inline_call(void *context, void *hook, void **arguments, struct code_trace *trace)
{
    unfinished.count = 0;
    generator.call(context, hook, 0, 4, arguments);
    inline_mark(context, trace);
}

void inline_count(void *context, void *hook, uint64_t user, int64_t *budget, uint64_t *block, struct code_trace *trace)
{
    void *base = result_of(emit_constant(context, (uintptr_t)budget)), *rest = new_variable(context);
    void *label = generator.new_label(context);

    emit(context, LOAD, rest, (uintptr_t)base, 0);
    unfinished.count = emit_constant(context, 0);
    emit(context, SUBTRACT, rest, (uintptr_t)rest, unfinished.count->arguments[0]);
    emit(context, STORE, rest, (uintptr_t)base, 0);
    unfinished.note = emit_constant(context, 0);
    emit(context, STORE, result_of(unfinished.note), (uintptr_t)base, (uint64_t)((uint8_t *)block - (uint8_t *)budget));
    inline_mark(context, trace);
    generator.branch(context, AT_LEAST, (uint64_t)((uint8_t *)rest - (uint8_t *)context), 0, label);
    generator.free_variable(context, base);
    generator.free_variable(context, rest);
    generator.free_variable(context, result_of(unfinished.count));
    generator.free_variable(context, result_of(unfinished.note));
    emit_rare_call(context, hook, user);
    emit(context, SET_LABEL, label, 0, 0);
}

void complete_block(void *context, const struct translation_block *translated, uint64_t count, uint64_t note)
{
    if (unfinished.context != context)
        return;
    unfinished.context = 0;
    if (unfinished.trace)
        place_block(unfinished.trace, unfinished.number, translated->pc, translated->size);
    if (unfinished.count) {
        unfinished.count->arguments[1] = count;
        unfinished.note->arguments[1] = note;
        unfinished.pc->arguments[1] = translated->pc;
        unfinished.size->arguments[1] = translated->size;
    }
}
