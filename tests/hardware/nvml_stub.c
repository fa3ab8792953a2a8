/* A libnvidia-ml.so.1 with two cards, for the unmodified nvidia-ml-py: gcc -shared -fPIC -o libnvidia-ml.so.1 nvml_stub.c
 *
 * Card 0 works at 99 %, held down by its temperature; card 1 idles and knows neither power limit nor P-state.
 * -DOLD_DRIVER leaves out the reasons' new spelling. STUB_LOST_AFTER=n: after n looks the card is lost from the bus;
 * STUB_HANGS_AFTER=n: it never answers again. STUB_WITHHELD=i: card i is another's. STUB_MIG=n: card 1 is divided into n.
 * STUB_FREE=g,h: GiB free of the 10 that each card has. STUB_PID=p: process p has 3 GiB of card 0; 0: who has is not said.
 * STUB_TOTAL=g,h: GiB that they have instead; then card 1 is another model. STUB_LOST=i: card i is lost.
 * STUB_REASONS=n: the reasons' bits of card 0; STUB_SM=n: its clock; STUB_BUSY=n: its use in percent; STUB_CAPPED=n: in a
 * thousandth, how fast its counter of capped time runs; STUB_POWER_FROM=n: NVML's number for where its power comes from.
 * STUB_NO_DRIVER: nothing answers. STUB_FILE=path: a file of such lines, read anew each time: for what changes meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7, NOT_LOADED = 9, LOST = 15 };
typedef int ret;
static int cards[4] = {0, 1, 2, 3}; /* 2 and 3: the parts of card 1 */
#define CARD (*(int *)card)

static int looks; /* at the SM clock, which is asked for first */

static int beyond(const char *name) {
    const char *limit = getenv(name);
    return limit && looks > atoi(limit);
}
#define ANSWER(...) return beyond("STUB_LOST_AFTER") ? LOST : (__VA_ARGS__, OK)

static const char *told(const char *name) { /* by the file, else by the environment */
    static char line[256];
    FILE *file = getenv("STUB_FILE") ? fopen(getenv("STUB_FILE"), "r") : NULL;
    size_t length = strlen(name);
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, name, length) && line[length] == '=') return fclose(file), line + length + 1;
    if (file) fclose(file);
    return getenv(name);
}
static int setting(const char *name, int otherwise) { return told(name) ? atoi(told(name)) : otherwise; }
static unsigned long long gib_of(const char *name, int card, int otherwise) { /* the first of two, or the second */
    const char *said = told(name);
    return !said ? otherwise : card && strchr(said, ',') ? atoi(strchr(said, ',') + 1) : atoi(said);
}

ret nvmlInitWithFlags(unsigned flags) { return getenv("STUB_NO_DRIVER") ? NOT_LOADED : OK; }
ret nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(ret error) { return error == LOST ? "GPU is lost" : "some error"; }

ret nvmlDeviceGetHandleByUUID(const char *uuid, void **card) {
    if (!strcmp(uuid, "GPU-aaaa")) return *card = &cards[0], OK;
    if (!strcmp(uuid, "GPU-bbbb")) return *card = &cards[1], OK;
    return NOT_FOUND;
}
ret nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **card) {
    if (!strcmp(address, "00000000:65:00.0")) return *card = &cards[1], OK;
    return NOT_FOUND;
}

ret nvmlDeviceGetClockInfo(void *card, int type, unsigned *mhz) { /* type 1: SM, 2: memory */
    looks += type == 1;
    while (beyond("STUB_HANGS_AFTER")) sleep(1);
    ANSWER(*mhz = CARD ? 210 : type == 1 ? setting("STUB_SM", 1200) : 9501);
}
#define FIGURE(name, type, busy, idle) \
    ret name(void *card, type *value) { ANSWER(*value = CARD ? (idle) : (busy)); }
#define NOT_WHEN_IDLE(name, type, busy) \
    ret name(void *card, type *value) { if (CARD) return NOT_SUPPORTED; ANSWER(*value = (busy)); }

FIGURE(nvmlDeviceGetPowerUsage, unsigned, 249500, 12000)
NOT_WHEN_IDLE(nvmlDeviceGetEnforcedPowerLimit, unsigned, 320000)
NOT_WHEN_IDLE(nvmlDeviceGetPerformanceState, int, 2)
ret nvmlDeviceGetMaxClockInfo(void *card, int type, unsigned *mhz) { ANSWER(*mhz = 2100); }
ret nvmlDeviceGetTemperature(void *card, int sensor, unsigned *celsius) { ANSWER(*celsius = CARD ? 35 : 87); }
ret nvmlDeviceGetMemoryInfo(void *card, unsigned long long *total_free_used) {
    unsigned long long all = gib_of("STUB_TOTAL", CARD, 10), gib = gib_of("STUB_FREE", CARD, 7);
    if (setting("STUB_LOST", -1) == CARD) return LOST;
    ANSWER(total_free_used[0] = all << 30, total_free_used[1] = gib << 30, total_free_used[2] = (all - gib) << 30);
}
ret nvmlDeviceGetUtilizationRates(void *card, unsigned *gpu_memory) {
    ANSWER(gpu_memory[0] = CARD ? 0 : setting("STUB_BUSY", 99), gpu_memory[1] = CARD ? 0 : 40);
}
#ifndef OLD_DRIVER
FIGURE(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, setting("STUB_REASONS", 0x20), 0x1 | 0x4)
#endif
FIGURE(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, setting("STUB_REASONS", 0x20), 0x1 | 0x4)

/* Of health: seconds of capping since the driver was loaded, 100 of them long ago. */
struct violation { unsigned long long reference, time; };
ret nvmlDeviceGetViolationStatus(void *card, int policy, struct violation *found) { /* microseconds, nanoseconds */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned long long ns = now.tv_sec * 1000000000ull + now.tv_nsec;
    found->reference = ns / 1000;
    if (policy > 1) return NOT_SUPPORTED;
    return found->time = policy || CARD ? 0 : 100000000000ull + ns / 1000 * setting("STUB_CAPPED", 0), OK;
}
ret nvmlDeviceGetPowerSource(void *card, int *source) {
    return setting("STUB_POWER_FROM", -1) < 0 ? NOT_SUPPORTED : (*source = setting("STUB_POWER_FROM", 0), OK);
}

/* What there is. */
ret nvmlSystemGetDriverVersion(char *text, unsigned size) { return strcpy(text, "580.65.06"), OK; }
ret nvmlDeviceGetCount_v2(unsigned *count) { return *count = 2, OK; }
ret nvmlDeviceGetHandleByIndex_v2(unsigned index, void **card) {
    if (setting("STUB_WITHHELD", -1) == (int)index) return NO_PERMISSION;
    return *card = &cards[index], OK;
}
ret nvmlDeviceGetCudaComputeCapability(void *card, int *major, int *minor) { return *major = 8, *minor = 6, OK; }
ret nvmlDeviceGetName(void *card, char *text, unsigned size) {
    return strcpy(text, CARD && told("STUB_TOTAL") ? "NVIDIA GeForce RTX 3090" : "NVIDIA GeForce RTX 3080"), OK;
}
ret nvmlDeviceGetUUID(void *card, char *text, unsigned size) {
    static const char *names[] = {"GPU-aaaa", "GPU-bbbb", "MIG-cccc", "MIG-dddd"};
    return strcpy(text, names[CARD]), OK;
}
ret nvmlDeviceGetMigMode(void *card, unsigned *now, unsigned *later) {
    return CARD == 1 && getenv("STUB_MIG") ? (*now = *later = 1, OK) : NOT_SUPPORTED;
}
ret nvmlDeviceGetMaxMigDeviceCount(void *card, unsigned *count) { return *count = 7, OK; }
ret nvmlDeviceGetMigDeviceHandleByIndex(void *card, unsigned place, void **part) {
    return (int)place < setting("STUB_MIG", 0) ? (*part = &cards[2 + place], OK) : NOT_FOUND;
}
struct process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };
ret nvmlDeviceGetComputeRunningProcesses_v3(void *card, unsigned *count, struct process *found) {
    int pid = setting("STUB_PID", -1), there = pid >= 0 && !CARD;
    if (there && *count == 0) return *count = 1, TOO_SMALL;
    if (there) found[0] = (struct process){pid ? pid : 1, pid ? 3ull << 30 : -1ull, -1, -1};
    return *count = there, OK;
}
