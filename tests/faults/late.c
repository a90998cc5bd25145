/* LD_PRELOAD: a process sees regular files of results/ LATE_SECONDS after they were last written, as a client of a
   network file system that remembers for so long that a file is not there. The base models are seen at once, and
   processes that it starts see everything. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static double seconds;

__attribute__((constructor)) static void start(void) {
    const char *given = getenv("LATE_SECONDS");
    seconds = given ? atof(given) : 0;
    unsetenv("LD_PRELOAD");
}

static int is_hidden(const char *path, const struct stat *s) {
    struct timespec now;
    if (!path || !strstr(path, "results/") || strstr(path, "results/models/") || !S_ISREG(s->st_mode)) return 0;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec - s->st_mtim.tv_sec + (now.tv_nsec - s->st_mtim.tv_nsec) / 1e9 < seconds;
}
static int is_late(const char *path) {
    struct stat s;
    return REAL(stat)(path, &s) == 0 && is_hidden(path, &s);
}
static int seen(int result, const char *path, const struct stat *s) {
    if (result == 0 && is_hidden(path, s)) { errno = ENOENT; return -1; }
    return result;
}

int stat(const char *path, struct stat *s) { return seen(REAL(stat)(path, s), path, s); }
int lstat(const char *path, struct stat *s) { return seen(REAL(lstat)(path, s), path, s); }
int fstatat(int folder, const char *path, struct stat *s, int flags) {
    return seen(REAL(fstatat)(folder, path, s, flags), path, s);
}
int stat64(const char *path, struct stat64 *s) { return stat(path, (struct stat *)s); }
int lstat64(const char *path, struct stat64 *s) { return lstat(path, (struct stat *)s); }
int fstatat64(int folder, const char *path, struct stat64 *s, int flags) {
    return fstatat(folder, path, (struct stat *)s, flags);
}
int access(const char *path, int mode) {
    if (is_late(path)) { errno = ENOENT; return -1; }
    return REAL(access)(path, mode);
}
int open64(const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    if (!(flags & O_CREAT) && is_late(path)) { errno = ENOENT; return -1; }
    return REAL(open64)(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    return open64(path, flags, mode);
}
