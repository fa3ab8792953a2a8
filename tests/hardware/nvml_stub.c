/* A libnvidia-ml.so.1 with two cards, for the unmodified nvidia-ml-py: gcc -shared -fPIC -o libnvidia-ml.so.1 nvml_stub.c
 *
 * Card 0 works at 99 %, held down by its temperature; card 1 idles and knows neither power limit nor P-state.
 * -DOLD_DRIVER leaves out the reasons' new spelling. STUB_LOST_AFTER=n: after n looks the card is lost from the bus;
 * STUB_HANGS_AFTER=n: it never answers again.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, LOST = 15 };
typedef int ret;
static int cards[2] = {0, 1};
#define CARD (*(int *)card)

static int looks; /* at the SM clock, which is asked for first */

static int beyond(const char *name) {
    const char *limit = getenv(name);
    return limit && looks > atoi(limit);
}
#define ANSWER(...) return beyond("STUB_LOST_AFTER") ? LOST : (__VA_ARGS__, OK)

ret nvmlInitWithFlags(unsigned flags) { return OK; }
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
    ANSWER(*mhz = CARD ? 210 : type == 1 ? 1200 : 9501);
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
    ANSWER(total_free_used[0] = 10ull << 30, total_free_used[1] = 7ull << 30, total_free_used[2] = 3ull << 30);
}
ret nvmlDeviceGetUtilizationRates(void *card, unsigned *gpu_memory) {
    ANSWER(gpu_memory[0] = CARD ? 0 : 99, gpu_memory[1] = CARD ? 0 : 40);
}
#ifndef OLD_DRIVER
FIGURE(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, 0x20, 0x1 | 0x4)
#endif
FIGURE(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 0x20, 0x1 | 0x4)
