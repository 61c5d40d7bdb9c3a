/* Makes calls on one file fail or stall, for tests: loaded with LD_PRELOAD.
 * FAIL_FSYNC_OF: the end of the file's name. FAIL_FSYNC_AT: which fsync of it fails, once, with EIO, from 1.
 * STALL_FSYNC_OF: the end of the file's name. STALL_FSYNC_EVERY: which of its fsyncs first take 500 ms.
 * FAIL_WRITE_OF: the end of the file's name. FAIL_WRITE_WHILE: a file; while it is there, every
 * write fails with ENOSPC. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_long calls;

static int is_named(int fd, const char *name) {
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    size_t wanted = strlen(name);
    return length >= (ssize_t)wanted && !memcmp(path + length - wanted, name, wanted);
}

static int fails(int fd) {
    const char *name = getenv("FAIL_FSYNC_OF"), *at = getenv("FAIL_FSYNC_AT");
    if (!name || !at || !is_named(fd, name)) return 0;
    return atomic_fetch_add(&calls, 1) + 1 == atol(at);
}

static atomic_long stalls;

static void stall(int fd) {
    const char *name = getenv("STALL_FSYNC_OF"), *every = getenv("STALL_FSYNC_EVERY");
    if (!name || !every || !is_named(fd, name)) return;
    if ((atomic_fetch_add(&stalls, 1) + 1) % atol(every) == 0) usleep(500000);
}

static int pass_on(const char *function, int fd) {
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    stall(fd);
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, function);
    return real(fd);
}

int fsync(int fd) { return pass_on("fsync", fd); }
int fdatasync(int fd) { return pass_on("fdatasync", fd); }

static int is_full(int fd) {
    const char *name = getenv("FAIL_WRITE_OF"), *flag = getenv("FAIL_WRITE_WHILE");
    if (!name || !flag || access(flag, F_OK) || !is_named(fd, name)) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    if (is_full(fd)) return -1;
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    return real(fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    return pwrite64(fd, bytes, length, at);
}
