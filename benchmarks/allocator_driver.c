// A CUDA driver without a GPU, for benchmarks/allocator.py: it hands out addresses and counts bytes, nothing else.
// CAPACITY (bytes) is what it has to give, TOTAL what it says the device has. Built as libcudart.so.13, and with -DNVML
// as libnvidia-ml.so.1.
#ifdef NVML
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void *device) { return 0; }
int nvmlDeviceGetNvLinkRemoteDeviceType(void) { return 3; }  // not supported
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void) { return 3; }
int nvmlDeviceGetGpuFabricInfoV(void *device, void *info) { return 3; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return *version = 13000, 0; }
int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, void *infos) { return *count = 0, 0; }
#else
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#define PAGE (20ul << 20)
#define MOST (1 << 20)

static size_t used, next_address = 1ul << 40;
static struct { size_t address, size; } segments[MOST];
static size_t handles[MOST];
static int n_segments, n_handles = 1;

static size_t given(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, 0, 10) : otherwise;
}

static int granted(size_t size) {
    if (used + size > given("CAPACITY", 1ul << 46)) return 0;
    used += size;
    return 1;
}

cudaError_t cudaMalloc(void **pointer, size_t size) {
    if (!granted(size)) return cudaErrorMemoryAllocation;
    segments[n_segments].address = next_address;
    segments[n_segments++].size = size;
    *pointer = (void *)next_address;
    next_address += size;
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
    for (int i = 0; i < n_segments; i++)
        if (segments[i].address == (size_t)pointer) {
            used -= segments[i].size;
            segments[i] = segments[--n_segments];
            break;
        }
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total) {
    *total = given("TOTAL", 1ul << 40);
    *left = given("CAPACITY", 1ul << 46) - used;
    return cudaSuccess;
}

#undef cudaGetDeviceProperties
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
    memset(found, 0, sizeof *found);
    found->totalGlobalMem = given("TOTAL", 1ul << 40);
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, cudaSuccess; }
const char *cudaGetErrorString(cudaError_t error) { return "an error"; }
const char *cudaGetErrorName(cudaError_t error) { return "an error"; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *most) { return *least = *most = 0, cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}

// Virtual memory, which expandable segments are made of.
static CUresult done(void) { return CUDA_SUCCESS; }
static CUresult device_get(CUdevice *device, int index) { return *device = 0, CUDA_SUCCESS; }
static CUresult attribute(int *value, CUdevice_attribute name, CUdevice device) { return *value = 0, CUDA_SUCCESS; }
static CUresult text(CUresult error, const char **found) { return *found = "an error", CUDA_SUCCESS; }
static CUresult granularity(size_t *found, const CUmemAllocationProp *of, CUmemAllocationGranularity_flags flags) {
    return *found = 2ul << 20, CUDA_SUCCESS;
}
static CUresult reserve(CUdeviceptr *pointer, size_t size, size_t alignment, CUdeviceptr at, unsigned long long flags) {
    *pointer = next_address = (next_address + PAGE - 1) / PAGE * PAGE;
    next_address += size;
    return CUDA_SUCCESS;
}
static CUresult create(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *of,
                       unsigned long long flags) {
    if (!granted(size)) return CUDA_ERROR_OUT_OF_MEMORY;
    handles[n_handles] = size;
    *handle = n_handles++;
    return CUDA_SUCCESS;
}
static CUresult release(CUmemGenericAllocationHandle handle) { return used -= handles[handle], CUDA_SUCCESS; }

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    static const struct { const char *name; void *function; } known[] = {
        {"cuDeviceGet", device_get},       {"cuDeviceGetAttribute", attribute},
        {"cuMemAddressReserve", reserve},  {"cuMemCreate", create},
        {"cuMemRelease", release},         {"cuMemGetAllocationGranularity", granularity},
        {"cuGetErrorString", text},
    };
    if (result) *result = cudaDriverEntryPointSuccess;
    *function = done;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name)) *function = known[i].function;
    return cudaSuccess;
}

// Asked for by libc10_cuda.so, and never called here.
#define NEVER(name) int name##_never(void) __asm__(#name); int name##_never(void) { abort(); }
NEVER(cudaDeviceCanAccessPeer) NEVER(cudaDeviceEnablePeerAccess) NEVER(cudaDeviceGetDefaultMemPool)
NEVER(cudaEventCreateWithFlags) NEVER(cudaEventDestroy) NEVER(cudaEventElapsedTime) NEVER(cudaEventQuery)
NEVER(cudaEventRecord) NEVER(cudaEventSynchronize) NEVER(cudaFreeAsync) NEVER(cudaGraphNodeGetDependencies)
NEVER(cudaIpcCloseMemHandle) NEVER(cudaIpcGetMemHandle) NEVER(cudaIpcOpenMemHandle) NEVER(cudaMallocAsync)
NEVER(cudaMemPoolGetAttribute) NEVER(cudaMemPoolSetAccess) NEVER(cudaMemPoolSetAttribute) NEVER(cudaMemPoolTrimTo)
NEVER(cudaMemcpy) NEVER(cudaMemcpyAsync) NEVER(cudaMemcpyPeerAsync) NEVER(cudaStreamCreateWithPriority)
NEVER(cudaStreamGetCaptureInfo) NEVER(cudaStreamQuery) NEVER(cudaStreamWaitEvent)
cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { return cudaSuccess; }
#endif
