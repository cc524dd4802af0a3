/* Logs what a process does to the files of one folder, in order, for tests/bars/powerloss.py. Loaded with LD_PRELOAD.
 *
 * POWERLOSS_DIR   the folder, absolute
 * POWERLOSS_LOG   the log, outside of it
 *
 * A record: 1 byte what, 8 bytes inode, 8 bytes offset, 4 bytes length of the data, then the data. Native byte order.
 *   W  write at an offset    T  truncate to the offset    S  fsync or fdatasync of a file    D  of the folder
 *   C  a name was made for the inode (data: the name)    R  renamed (data: old NUL new)    U  a name was taken away
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 1024
enum { OTHER, FILE_, FOLDER };

static const char *folder;
static size_t folder_size;
static int log_fd = -1;
static char kind[FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("POWERLOSS_LOG");
    folder = getenv("POWERLOSS_DIR");
    if (path == NULL || folder == NULL) return;
    folder_size = strlen(folder);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_fd = fd;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *inside(const char *path) {
    if (log_fd < 0 || strncmp(path, folder, folder_size) != 0 || path[folder_size] != '/') return NULL;
    return path + folder_size + 1;
}

static int is(int fd, int wanted) { return fd >= 0 && fd < FDS && kind[fd] == wanted; }

static uint64_t inode(int fd) {
    struct stat known;
    return fstat(fd, &known) == 0 ? (uint64_t)known.st_ino : 0;
}

static void say(char what, uint64_t node, uint64_t offset, const void *data, uint32_t size) {
    char head[21];
    head[0] = what;
    memcpy(head + 1, &node, 8);
    memcpy(head + 9, &offset, 8);
    memcpy(head + 17, &size, 4);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, size}};
    if (syscall(SYS_writev, log_fd, parts, 2) != (long)(sizeof head + size)) abort();
}

static int opened(int fd, const char *path, int existed) {
    if (fd < 0 || fd >= FDS || log_fd < 0) return fd;
    const char *name = inside(path);
    kind[fd] = name != NULL ? FILE_ : strcmp(path, folder) == 0 ? FOLDER : OTHER;
    if (name != NULL && !existed) say('C', inode(fd), 0, name, strlen(name));
    return fd;
}

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...) {                          \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                     \
        pthread_mutex_lock(&lock);                                        \
        int existed = !(flags & O_CREAT) || access(path, F_OK) == 0;      \
        int fd = REAL(name)(path, flags, mode);                           \
        int error = errno;                                                \
        opened(fd, path, existed);                                        \
        if (fd >= 0 && existed && (flags & O_TRUNC) && is(fd, FILE_)) say('T', inode(fd), 0, "", 0); \
        pthread_mutex_unlock(&lock);                                      \
        errno = error;                                                    \
        return fd;                                                        \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (fd >= 0 && fd < FDS) kind[fd] = OTHER;
    return REAL(close)(fd);
}

#define PWRITE(name, offset_type)                                                      \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) {         \
        if (!is(fd, FILE_)) return REAL(name)(fd, data, size, offset);                 \
        pthread_mutex_lock(&lock);                                                     \
        ssize_t done = REAL(name)(fd, data, size, offset);                             \
        int error = errno;                                                             \
        if (done > 0) say('W', inode(fd), offset, data, done);                         \
        pthread_mutex_unlock(&lock);                                                   \
        errno = error;                                                                 \
        return done;                                                                   \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    if (!is(fd, FILE_)) return REAL(write)(fd, data, size);
    pthread_mutex_lock(&lock);
    off64_t before = lseek64(fd, 0, SEEK_CUR);
    ssize_t done = REAL(write)(fd, data, size);
    int error = errno;
    if (done > 0) say('W', inode(fd), before, data, done);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

#define TRUNCATE(name, size_type)                              \
    int name(int fd, size_type size) {                         \
        pthread_mutex_lock(&lock);                             \
        int result = REAL(name)(fd, size);                     \
        int error = errno;                                     \
        if (result == 0 && is(fd, FILE_)) say('T', inode(fd), size, "", 0); \
        pthread_mutex_unlock(&lock);                           \
        errno = error;                                         \
        return result;                                         \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* Nothing is really synced: the disk that counts is the one that the log describes. */
#define SYNC(name)                                             \
    int name(int fd) {                                         \
        if (is(fd, OTHER)) return REAL(name)(fd);              \
        pthread_mutex_lock(&lock);                             \
        say(is(fd, FOLDER) ? 'D' : 'S', inode(fd), 0, "", 0);  \
        pthread_mutex_unlock(&lock);                           \
        return 0;                                              \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int result = REAL(unlink)(path);
    int error = errno;
    const char *name = inside(path);
    if (result == 0 && name != NULL) say('U', 0, 0, name, strlen(name));
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int rename(const char *old, const char *new) {
    pthread_mutex_lock(&lock);
    int result = REAL(rename)(old, new);
    int error = errno;
    const char *from = inside(old), *to = inside(new);
    if (result == 0 && from != NULL && to != NULL) {
        char names[2 * PATH_MAX];
        int size = snprintf(names, sizeof names, "%s%c%s", from, 0, to);
        say('R', 0, 0, names, size);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
