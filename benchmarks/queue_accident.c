/* Preloaded into every process of the campaign's world: a full disk, and an accident at one exact change to a file.

While the file `full` is there, nothing is written to a file. The file `at` says "ROLE NUMBER WHAT": the first process of
that role (manager, child, training) that is about to make its NUMBERth change to a file meets WHAT (kill, stop, full).
What a process leaves behind differs only by the changes it has made, so these are all the moments there are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define TELL_WHERE (SIGRTMIN + 5) /* the interpreter writes its stack down: queue_world.py */

static int in(char *path, const char *name) { /* a file of the faults' directory */
    const char *faults = getenv("GANEUM_FAULTS");
    return faults && snprintf(path, 4096, "%s/%s", faults, name) < 4096;
}

static const char *role(void) {
    static const char *known;
    if (known) return known;
    char words[65536];
    int fd = open("/proc/self/cmdline", O_RDONLY);
    ssize_t size = fd < 0 ? 0 : read(fd, words, sizeof words - 1);
    if (fd >= 0) close(fd);
    for (ssize_t i = 0; i < size; i++) if (!words[i]) words[i] = ' ';
    words[size > 0 ? size : 0] = 0;
    if (strstr(words, " ganeum.queue.child ")) return known = "child";
    if (strstr(words, "queue_manager.py ")) return known = "manager";
    if (strstr(words, "queue_trainer.py ") || strstr(words, " -m ganeum train ")) return known = "training";
    return known = "other";
}

static void moment(void) {
    static __thread int within;
    static struct timespec plan;
    static int passed;
    char path[4096], met[4096], whose[16], what[8];
    struct stat about;
    int number, kept = errno;
    if (within || !in(path, "at")) return;
    within = 1;
    FILE *file = fopen(path, "re");
    if (file) {
        int read = fscanf(file, "%15s %d %7s", whose, &number, what);
        fstat(fileno(file), &about);
        fclose(file);
        if (about.st_mtim.tv_sec != plan.tv_sec || about.st_mtim.tv_nsec != plan.tv_nsec) plan = about.st_mtim, passed = 0;
        if (read == 3 && !strcmp(whose, role()) && __atomic_add_fetch(&passed, 1, __ATOMIC_SEQ_CST) == number && in(met, "met")
            && !NEXT(rename)(path, met)) { /* of two processes one gets it */
            struct sigaction told;
            if (!sigaction(TELL_WHERE, NULL, &told) && told.sa_handler != SIG_DFL) raise(TELL_WHERE);
            if (!strcmp(what, "kill")) raise(SIGKILL);
            if (!strcmp(what, "stop")) raise(SIGSTOP);
            if (!strcmp(what, "full") && in(path, "full")) close(open(path, O_CREAT | O_WRONLY, 0600));
        }
    }
    within = 0;
    errno = kept;
}

static int full(int fd) {
    char path[4096];
    struct stat about;
    return !fstat(fd, &about) && S_ISREG(about.st_mode) && in(path, "full") && !access(path, F_OK);
}

static int file(int fd) {
    struct stat about;
    return !fstat(fd, &about) && S_ISREG(about.st_mode);
}

#define WRITES(result, name, types, values)                                                    \
    result name types {                                                                        \
        if (file(fd)) moment();                                                                \
        if (full(fd)) { errno = ENOSPC; return -1; }                                           \
        return NEXT(name) values;                                                              \
    }
#define CHANGES(name, types, values)                                                           \
    int name types { moment(); return NEXT(name) values; }

WRITES(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRITES(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRITES(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRITES(ssize_t, writev, (int fd, const struct iovec *parts, int number), (fd, parts, number))
CHANGES(rename, (const char *from, const char *to), (from, to))
CHANGES(unlink, (const char *path), (path))
CHANGES(mkdir, (const char *path, mode_t mode), (path, mode))
CHANGES(rmdir, (const char *path), (path))
CHANGES(ftruncate, (int fd, off_t size), (fd, size))
CHANGES(ftruncate64, (int fd, off64_t size), (fd, size))
CHANGES(fsync, (int fd), (fd))
CHANGES(fdatasync, (int fd), (fd))
