/* Makes one fsync of one file fail with EIO, once, for tests: loaded with LD_PRELOAD.
 * FAIL_FSYNC_OF: the end of the file's name. FAIL_FSYNC_AT: which fsync of it fails, from 1. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_long calls;

static int fails(int fd) {
    const char *name = getenv("FAIL_FSYNC_OF"), *at = getenv("FAIL_FSYNC_AT");
    char link[32], path[4096];
    if (!name || !at) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    size_t wanted = strlen(name);
    if (length < (ssize_t)wanted || memcmp(path + length - wanted, name, wanted)) return 0;
    return atomic_fetch_add(&calls, 1) + 1 == atol(at);
}

static int pass_on(const char *function, int fd) {
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, function);
    return real(fd);
}

int fsync(int fd) { return pass_on("fsync", fd); }
int fdatasync(int fd) { return pass_on("fdatasync", fd); }
