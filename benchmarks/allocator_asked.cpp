// torch's own caching allocator, asked from standard input, for benchmarks/allocator.py: "a KEY BYTES" allocates, "f KEY"
// releases, "e" empties the cache, "l SHARE" limits it. A line for each: allocated, requested, reserved, the peaks of the
// first and the last, retries, and "oom" where there was no memory.
#include <c10/cuda/CUDACachingAllocator.h>

#include <iostream>
#include <unordered_map>

namespace c10::cuda::detail {
void init_p2p_access_cache(int64_t devices);
}

int main() {
    namespace allocator = c10::cuda::CUDACachingAllocator;
    allocator::init(1);
    c10::cuda::detail::init_p2p_access_cache(1);
    std::unordered_map<long, void *> live;
    char what;
    long key;
    size_t bytes;
    double share;
    while (std::cin >> what) {
        const char *end = "";
        if (what == 'a') {
            std::cin >> key >> bytes;
            try {
                live[key] = allocator::raw_alloc(bytes);
            } catch (const c10::OutOfMemoryError &) {
                end = " oom";
            }
        } else if (what == 'f') {
            std::cin >> key;
            if (auto found = live.find(key); found != live.end()) {
                allocator::raw_delete(found->second);
                live.erase(found);
            }
        } else if (what == 'e') {
            allocator::emptyCache();
        } else if (what == 'l') {
            std::cin >> share;
            allocator::setMemoryFraction(share, 0);
            continue;
        }
        auto now = allocator::getDeviceStats(0);
        std::cout << now.allocated_bytes[0].current << ' ' << now.requested_bytes[0].current << ' '
                  << now.reserved_bytes[0].current << ' ' << now.allocated_bytes[0].peak << ' '
                  << now.reserved_bytes[0].peak << ' ' << now.num_alloc_retries << end << '\n';
    }
}
