/* LD_PRELOAD: a checkpoint gets its name SLOW_SECONDS after it is written, as where a large one is saved. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int rename(const char *from, const char *to) {
    const char *given = getenv("SLOW_SECONDS");
    unsigned left = given && strstr(to, "/step-") ? (unsigned)atoi(given) : 0;
    while (left) left = sleep(left); /* signals end a sleep */
    return ((__typeof__(&rename))dlsym(RTLD_NEXT, "rename"))(from, to);
}
