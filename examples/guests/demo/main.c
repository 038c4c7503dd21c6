/*
 * A notebook: a line-based language of variables that hold numbers or texts, kept in the heap.
 *
 *   let NAME = TERM {+|-|*|/ TERM}      a TERM is a number, "a text" or a name; + joins texts
 *   print TERM {+|-|*|/ TERM}
 *   push TERM ..., pop NAME             a stack of values
 *   drop NAME, list, time, primes N, check, help, bye
 *
 * It has a bug, put there on purpose: see text_value().  Every eighth command it looks at its heap, and gives up
 * with "heap corrupted: ..." when a cell's header is damaged, long after the damage was done.
 */
#include "board.h"
#include "heap.h"

enum { NAME_SIZE = 8, VARIABLES = 24, STACK_SIZE = 16, TEXT_SIZE = 120, COMMANDS_BETWEEN_CHECKS = 8 };

enum kind { NOTHING, NUMBER, TEXT };

struct value {
    enum kind kind;
    union {
        int64_t *number; /* both are in the heap */
        char *text;
    };
};

struct variable {
    char name[NAME_SIZE];
    struct value value;
};

/* What an expression has computed so far; not in the heap. */
struct result {
    enum kind kind;
    int64_t number;
    size_t length;
    char text[TEXT_SIZE + 1];
};

static struct variable variables[VARIABLES];
static struct value stack[STACK_SIZE];
static unsigned stack_depth;
static unsigned commands;

/* the rest of the line under work, and what was wrong with it */
static const char *cursor;
static const char *complaint;

static void complain(const char *what)
{
    if (!complaint)
        complaint = what;
}

/* ---- the heap's contents */

static void forget(struct value *value)
{
    if (value->kind == NUMBER)
        heap_give_back(value->number);
    else if (value->kind == TEXT)
        heap_give_back(value->text);
    value->kind = NOTHING;
}

static int64_t *number_value(int64_t number, uint64_t owner)
{
    int64_t *kept = heap_take(sizeof number, owner);

    if (kept)
        *kept = number;
    return kept;
}

/*
 * THE BUG: there is room for the characters only, not for the terminator.  Cells are multiples of 16 bytes, so it
 * goes well, except for a text of exactly 16, 32, 48 ... characters: its terminator lands in the next cell's header.
 */
static char *text_value(const char *text, size_t length, uint64_t owner)
{
    char *kept = heap_take(length, owner);
    size_t index;

    if (!kept)
        return NULL;
    for (index = 0; index < length; index++)
        kept[index] = text[index];
    kept[index] = '\0';
    return kept;
}

static void keep(struct value *value, const struct result *result, uint64_t owner)
{
    forget(value);
    if (result->kind == NUMBER)
        value->number = number_value(result->number, owner);
    else
        value->text = text_value(result->text, result->length, owner);
    if (value->number)
        value->kind = result->kind;
    else
        complain("the heap is full");
}

static void check_heap(int tell)
{
    unsigned number;
    const struct cell *cell = heap_damaged(&number);

    if (!cell) {
        if (tell)
            put_text("the heap is sound\n");
        return;
    }
    put_text("heap corrupted: cell ");
    put_number(number);
    put_text(" at ");
    put_hex((uint64_t)cell);
    put_text(": size ");
    put_hex(cell->size);
    put_text(", guard ");
    put_hex(cell->guard);
    put_text(", expected ");
    put_hex(CELL_GUARD ^ cell->size);
    put_text("\nhalted after ");
    put_number(commands);
    put_text(" commands\n");
    power_off();
}

/* ---- reading a line */

static void skip_blanks(void)
{
    while (*cursor == ' ')
        cursor++;
}

static int is_letter(char character)
{
    return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') || character == '_';
}

static int is_digit(char character)
{
    return character >= '0' && character <= '9';
}

static int same(const char *left, const char *right)
{
    while (*left && *left == *right)
        left++, right++;
    return *left == *right;
}

static int take_word(char word[NAME_SIZE])
{
    int length = 0;

    skip_blanks();
    while (is_letter(*cursor) || (length && is_digit(*cursor))) {
        if (length + 1 < NAME_SIZE)
            word[length++] = *cursor;
        cursor++;
    }
    word[length] = '\0';
    return length > 0;
}

static struct variable *find(const char *name, int make)
{
    struct variable *unused = NULL;

    for (struct variable *variable = variables; variable < variables + VARIABLES; variable++) {
        if (variable->name[0] && same(variable->name, name))
            return variable;
        if (!variable->name[0] && !unused)
            unused = variable;
    }
    if (!make) {
        complain("no such variable");
        return NULL;
    }
    if (!unused) {
        complain("too many variables");
        return NULL;
    }
    for (int index = 0; index < NAME_SIZE; index++)
        unused->name[index] = name[index];
    return unused;
}

static void add_character(struct result *result, char character)
{
    if (result->length < TEXT_SIZE) {
        result->text[result->length++] = character;
        result->text[result->length] = '\0';
    } else {
        complain("the text is too long");
    }
}

static void take_number(struct result *result)
{
    uint64_t number = 0;

    while (is_digit(*cursor))
        number = number * 10 + (uint64_t)(*cursor++ - '0');
    result->kind = NUMBER;
    result->number = (int64_t)number;
}

static void take_term(struct result *result)
{
    char name[NAME_SIZE] = "";
    struct variable *variable;

    result->kind = NOTHING;
    result->length = 0;
    result->text[0] = '\0';
    skip_blanks();
    if (*cursor == '"') {
        result->kind = TEXT;
        for (cursor++; *cursor && *cursor != '"'; cursor++)
            add_character(result, *cursor);
        if (*cursor == '"')
            cursor++;
        else
            complain("the text has no end");
    } else if (is_digit(*cursor)) {
        take_number(result);
    } else if (*cursor == '-' && is_digit(cursor[1])) {
        cursor++;
        take_number(result);
        result->number = (int64_t)-(uint64_t)result->number;
    } else if (take_word(name)) {
        variable = find(name, 0);
        if (!variable)
            return;
        result->kind = variable->value.kind;
        if (result->kind == NOTHING)
            complain("it has no value");
        else if (result->kind == NUMBER)
            result->number = *variable->value.number;
        else
            for (const char *text = variable->value.text; *text; text++)
                add_character(result, *text);
    } else {
        complain("a number, a \"text\" or a name is missing");
    }
}

static int64_t calculate(int64_t left, char operation, int64_t right)
{
    switch (operation) {
    case '+':
        return (int64_t)((uint64_t)left + (uint64_t)right);
    case '-':
        return (int64_t)((uint64_t)left - (uint64_t)right);
    case '*':
        return (int64_t)((uint64_t)left * (uint64_t)right);
    default:
        if (right == 0)
            complain("division by zero");
        return right == 0 ? 0 : right == -1 ? (int64_t)-(uint64_t)left : left / right;
    }
}

/* From left to right, without precedence. */
static void take_expression(struct result *result)
{
    static struct result term;

    take_term(result);
    for (skip_blanks(); !complaint && *cursor; skip_blanks()) {
        char operation = *cursor;

        if (operation != '+' && operation != '-' && operation != '*' && operation != '/') {
            complain("what is behind the value?");
            return;
        }
        cursor++;
        take_term(&term);
        if (complaint)
            return;
        if (result->kind == NUMBER && term.kind == NUMBER) {
            result->number = calculate(result->number, operation, term.number);
        } else if (result->kind == TEXT && term.kind == TEXT && operation == '+') {
            for (size_t index = 0; index < term.length; index++)
                add_character(result, term.text[index]);
        } else {
            complain("numbers and texts do not mix");
        }
    }
}

static void show(const struct value *value)
{
    if (value->kind == NUMBER) {
        put_number(*value->number);
    } else if (value->kind == TEXT) {
        put_char('"');
        put_text(value->text);
        put_char('"');
    }
}

/* ---- the commands */

static struct result result;

static void do_let(void)
{
    char name[NAME_SIZE];
    struct variable *variable;

    if (!take_word(name)) {
        complain("let NAME = VALUE");
        return;
    }
    skip_blanks();
    if (*cursor++ != '=') {
        cursor--;
        complain("let NAME = VALUE");
        return;
    }
    take_expression(&result);
    variable = complaint ? NULL : find(name, 1);
    if (variable)
        keep(&variable->value, &result, (uint64_t)variable);
}

static void do_print(void)
{
    take_expression(&result);
    if (complaint)
        return;
    if (result.kind == NUMBER)
        put_number(result.number);
    else
        put_text(result.text);
    put_char('\n');
}

static void do_push(void)
{
    take_expression(&result);
    if (!complaint && stack_depth == STACK_SIZE)
        complain("the stack is full");
    if (complaint)
        return;
    keep(&stack[stack_depth], &result, (uint64_t)&stack[stack_depth]);
    if (!complaint)
        stack_depth++;
}

static void do_pop(void)
{
    char name[NAME_SIZE];
    struct variable *variable;

    if (!take_word(name))
        complain("pop NAME");
    else if (!stack_depth)
        complain("the stack is empty");
    variable = complaint ? NULL : find(name, 1);
    if (!variable)
        return;
    forget(&variable->value);
    variable->value = stack[--stack_depth];
    stack[stack_depth].kind = NOTHING;
}

static void do_drop(void)
{
    char name[NAME_SIZE];
    struct variable *variable;

    if (!take_word(name)) {
        complain("drop NAME");
        return;
    }
    variable = find(name, 0);
    if (variable) {
        forget(&variable->value);
        variable->name[0] = '\0';
    }
}

static void do_list(void)
{
    size_t used, unused;

    for (const struct variable *variable = variables; variable < variables + VARIABLES; variable++) {
        if (!variable->name[0])
            continue;
        put_text(variable->name);
        put_text(" = ");
        show(&variable->value);
        put_char('\n');
    }
    heap_usage(&used, &unused);
    put_number((int64_t)used);
    put_text(" bytes used, ");
    put_number((int64_t)unused);
    put_text(" free\n");
}

static void do_time(void)
{
    put_number((int64_t)microseconds());
    put_text(" us\n");
}

/* Something to be busy with: how many primes there are up to N. */
static void do_primes(void)
{
    int64_t count = 0;

    take_expression(&result);
    if (!complaint && result.kind != NUMBER)
        complain("primes NUMBER");
    if (complaint)
        return;
    for (int64_t candidate = 2; candidate <= result.number; candidate++) {
        int64_t divisor = 2;

        while (divisor * divisor <= candidate && candidate % divisor)
            divisor++;
        count += divisor * divisor > candidate;
    }
    put_number(count);
    put_char('\n');
}

static void do_check(void)
{
    check_heap(1);
}

static void do_help(void)
{
    put_text("let NAME = VALUE, print VALUE, push VALUE, pop NAME, drop NAME, list, time, primes N, check, bye\n");
}

static void do_bye(void)
{
    put_text("bye\n");
    power_off();
}

static const struct {
    const char *word;
    void (*carry_out)(void);
} table[] = {
    { "let", do_let },   { "print", do_print },   { "push", do_push },   { "pop", do_pop },   { "drop", do_drop },
    { "list", do_list }, { "time", do_time },     { "primes", do_primes }, { "check", do_check }, { "help", do_help },
    { "bye", do_bye },
};

static void carry_out(const char *line)
{
    char word[NAME_SIZE];

    cursor = line;
    complaint = NULL;
    if (!take_word(word))
        complain("a command is missing; try help");
    for (size_t index = 0; !complaint; index++) {
        if (index == sizeof table / sizeof table[0]) {
            complain("no such command; try help");
        } else if (same(table[index].word, word)) {
            table[index].carry_out();
            break;
        }
    }
    if (complaint) {
        put_text("? ");
        put_text(complaint);
        put_char('\n');
    }
}

int main(void)
{
    static char line[200];

    heap_start();
    board_start();
    put_text("notebook, ready\n");
    for (;;) {
        put_text("> ");
        if (!read_line(line, sizeof line))
            continue;
        carry_out(line);
        if (++commands % COMMANDS_BETWEEN_CHECKS == 0)
            check_heap(0);
    }
}
