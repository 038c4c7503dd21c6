/* The count of a block, written into its translation. */
#include "inlined.h"

#include "code_trace.h"

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
    struct operation *count, *note, *pc, *size, *marks, *first_mark;
    uint8_t *executed;
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

void inline_count(void *context, void *hook, uint64_t user, int64_t *budget, uint64_t *block, uint8_t *executed)
{
    void *base = result_of(emit_constant(context, (uintptr_t)budget)), *rest = new_variable(context);
    void *label = generator.new_label(context), *one;

    emit(context, LOAD, rest, (uintptr_t)base, 0);
    unfinished.count = emit_constant(context, 0);
    emit(context, SUBTRACT, rest, (uintptr_t)rest, unfinished.count->arguments[0]);
    emit(context, STORE, rest, (uintptr_t)base, 0);
    unfinished.note = emit_constant(context, 0);
    emit(context, STORE, result_of(unfinished.note), (uintptr_t)base, (uint64_t)((uint8_t *)block - (uint8_t *)budget));
    unfinished.executed = executed;
    if (executed) {
        one = result_of(emit_constant(context, 1));
        unfinished.marks = emit_constant(context, 0);
        unfinished.first_mark = emit(context, STORE_BYTE, one, unfinished.marks->arguments[0], 0);
        generator.free_variable(context, one);
        generator.free_variable(context, result_of(unfinished.marks));
    }
    generator.branch(context, AT_LEAST, (uint64_t)((uint8_t *)rest - (uint8_t *)context), 0, label);
    generator.free_variable(context, base);
    generator.free_variable(context, rest);
    generator.free_variable(context, result_of(unfinished.count));
    generator.free_variable(context, result_of(unfinished.note));
    emit_rare_call(context, hook, user);
    emit(context, SET_LABEL, label, 0, 0);
    unfinished.context = context;
}

/* one operation for each mark, relative to the first */
static void complete_marks(void *context, const struct translation_block *translated)
{
    uint64_t granule = translated->pc >> TRACE_GRANULE_SHIFT;
    uint64_t last = (translated->pc + translated->size - (translated->size > 0)) >> TRACE_GRANULE_SHIFT;
    uint32_t first = trace_mark(granule);

    unfinished.marks->arguments[1] = (uintptr_t)(unfinished.executed + first);
    while (granule != last) {
        struct operation *mark = generator.emit_after(context, unfinished.first_mark, STORE_BYTE);

        granule = (granule + 1) & UINT64_MAX >> TRACE_GRANULE_SHIFT;
        mark->arguments[0] = unfinished.first_mark->arguments[0];
        mark->arguments[1] = unfinished.first_mark->arguments[1];
        mark->arguments[2] = (uint64_t)((int64_t)trace_mark(granule) - (int64_t)first);
    }
}

void complete_count(void *context, const struct translation_block *translated, uint64_t count, uint64_t note)
{
    if (unfinished.context != context)
        return;
    unfinished.context = 0;
    unfinished.count->arguments[1] = count;
    unfinished.note->arguments[1] = note;
    unfinished.pc->arguments[1] = translated->pc;
    unfinished.size->arguments[1] = translated->size;
    if (unfinished.executed)
        complete_marks(context, translated);
}
