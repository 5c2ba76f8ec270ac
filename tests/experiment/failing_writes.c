/* Lets the nth call that writes below a folder fail once. Loaded with LD_PRELOAD; armed from Python:
   arm_fault("/path/to/run", n, ENOSPC). seen_calls() says how many such calls there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[PATH_MAX];
static long failing, seen;
static int number;

void arm_fault(const char *folder, long n, int error) {
  snprintf(below, sizeof below, "%s/", folder);
  failing = n, number = error, seen = 0;
}
long seen_calls(void) { return seen; }

static int fails_at(const char *path) {
  if (!below[0] || strncmp(path, below, strlen(below))) return 0;
  if (++seen != failing) return 0;
  errno = number;
  return 1;
}

static int fails_on(int fd) {
  char link[64], path[PATH_MAX];
  if (!below[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return fails_at(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FD_CALL(type, name, parameters, ...) \
  type name parameters { return fails_on(fd) ? -1 : REAL(name)(__VA_ARGS__); }
FD_CALL(ssize_t, write, (int fd, const void *data, size_t size), fd, data, size)
FD_CALL(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
FD_CALL(ssize_t, writev, (int fd, const struct iovec *parts, int count), fd, parts, count)
/* No process is killed here, so that nothing needs to wait for the disk. */
int fsync(int fd) { return fails_on(fd) ? -1 : 0; }
FD_CALL(int, ftruncate64, (int fd, off64_t size), fd, size)

int rename(const char *from, const char *to) {
  return fails_at(to) ? -1 : REAL(rename)(from, to);
}

/* Only what may create a file: reading is not what fails here. */
#define OPEN_CALL(name, first, ...) \
  int name(first const char *path, int flags, ...) { \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    if ((flags & O_CREAT) && fails_at(path)) return -1; \
    return REAL(name)(__VA_ARGS__ path, flags, mode); \
  }
#define NONE
OPEN_CALL(open, NONE, NONE)
OPEN_CALL(open64, NONE, NONE)
#undef OPEN_CALL
int openat64(int folder, const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if ((flags & O_CREAT) && fails_at(path)) return -1;
  return REAL(openat64)(folder, path, flags, mode);
}
