/* Runs one plan on an emulated machine: every stage, one after the other, all of its tasks.
 *
 *   driver CASE OUTPUT
 *
 * CASE is a row of 64-bit integers: the number of slots and of stages, the slot that is written to
 * OUTPUT, whether arrays begin at a forbidden page (1) or end at one (0), and the number of workers;
 * for each slot its bytes, and whether they follow, and then they do; for each stage its kernel, its
 * tasks and its words, and for each word a slot and a number to add, or -1 and a number, or -2 and a
 * kernel whose address it is. Slots without bytes start as all ones, which is NaN. Tasks are done
 * one at a time, by workers of different numbers.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef void stage(int64_t *arguments, int64_t first, int64_t last, int64_t worker);
extern stage *const kernels[];

enum { PAGE = 1 << 16, MOST_SLOTS = 16, MOST_WORDS = 128, NUMBER = -1, ROUTINE = -2 };

static void check(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "driver: %s\n", what);
        exit(2);
    }
}

static int64_t next(FILE *file) {
    int64_t word;
    check(fread(&word, sizeof word, 1, file) == 1, "the case ends too early");
    return word;
}

/* Memory of `bytes` bytes with forbidden pages on both sides, beside the one asked for. */
static char *guarded(int64_t bytes, int before) {
    size_t inside = (bytes + PAGE - 1) / PAGE * PAGE;
    char *start = mmap(NULL, inside + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(start != MAP_FAILED, "no memory");
    start += PAGE;
    check(inside == 0 || mprotect(start, inside, PROT_READ | PROT_WRITE) == 0, "mprotect");
    return before ? start : start + inside - bytes;
}

static void run_stage(FILE *file, char *const *slots, int64_t threads) {
    int64_t kernel = next(file), tasks = next(file), words = next(file), arguments[MOST_WORDS];
    check(words <= MOST_WORDS, "too many words");
    for (int64_t n = 0; n < words; n++) {
        int64_t slot = next(file), number = next(file);
        if (slot == ROUTINE)
            arguments[n] = (int64_t)(intptr_t)kernels[number];
        else
            arguments[n] = slot == NUMBER ? number : (int64_t)(intptr_t)slots[slot] + number;
    }
    for (int64_t task = 0; task < tasks; task++)
        kernels[kernel](arguments, task, task + 1, task % threads);
}

int main(int count, char **names) {
    check(count == 3, "give a case and an output");
    FILE *file = fopen(names[1], "rb");
    check(file != NULL, "cannot read the case");
    int64_t slots = next(file), stages = next(file), written = next(file), before = next(file);
    int64_t threads = next(file), bytes[MOST_SLOTS], follows[MOST_SLOTS];
    char *places[MOST_SLOTS];
    check(slots <= MOST_SLOTS, "too many slots");
    for (int64_t n = 0; n < slots; n++) {
        bytes[n] = next(file);
        follows[n] = next(file);
        places[n] = guarded(bytes[n], before);
        memset(places[n], 0xff, bytes[n]);
        if (follows[n])
            check(fread(places[n], 1, bytes[n], file) == (size_t)bytes[n], "no bytes");
    }
    for (int64_t n = 0; n < stages; n++)
        run_stage(file, places, threads);
    FILE *output = fopen(names[2], "wb");
    check(output != NULL, "cannot write");
    check(fwrite(places[written], 1, bytes[written], output) == (size_t)bytes[written], "write");
    check(fclose(output) == 0, "write");
    return 0;
}
