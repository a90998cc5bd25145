/* LD_PRELOAD: SIGKILL at the n-th change of a file, counted over all threads of a process.

   A change is a call that makes, writes, renames, removes or syncs a regular file. `killer_arm(n)` starts to
   count: the n-th call ends the process before it is made or, where it writes, after half of its bytes.
   0: count alone. `killer_count()` is the number of changes since then. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long count, point;

void killer_arm(long n) { point = n; count = 0; }
long killer_count(void) { return count; }

static int is_last(void) { return atomic_fetch_add(&count, 1) + 1 == point; }
static void end(void) { kill(getpid(), SIGKILL); for (;;) pause(); }
static void change(void) { if (is_last()) end(); }
static int is_file(int fd) { struct stat s; return fstat(fd, &s) == 0 && S_ISREG(s.st_mode); }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t n) {
    if (is_file(fd) && is_last()) { REAL(write)(fd, bytes, n / 2); end(); }
    return REAL(write)(fd, bytes, n);
}
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    if (is_file(fd) && is_last()) { REAL(pwrite64)(fd, bytes, n / 2, at); end(); }
    return REAL(pwrite64)(fd, bytes, n, at);
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return pwrite64(fd, bytes, n, at); }
ssize_t writev(int fd, const struct iovec *parts, int n) {
    if (is_file(fd)) change();
    return REAL(writev)(fd, parts, n);
}
int fsync(int fd) { if (is_file(fd)) change(); return REAL(fsync)(fd); }
int fdatasync(int fd) { if (is_file(fd)) change(); return REAL(fdatasync)(fd); }
int ftruncate64(int fd, off64_t n) { change(); return REAL(ftruncate64)(fd, n); }
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }
int rename(const char *from, const char *to) { change(); return REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { change(); return REAL(renameat)(a, from, b, to); }
int unlink(const char *path) { change(); return REAL(unlink)(path); }
int unlinkat(int folder, const char *path, int flags) { change(); return REAL(unlinkat)(folder, path, flags); }
int rmdir(const char *path) { change(); return REAL(rmdir)(path); }
int mkdir(const char *path, mode_t mode) { change(); return REAL(mkdir)(path, mode); }
int open64(const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    if (flags & (O_CREAT | O_TRUNC)) change();
    return REAL(open64)(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    return open64(path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    if (flags & (O_CREAT | O_TRUNC)) change();
    return REAL(openat64)(folder, path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    return openat64(folder, path, flags, mode);
}
