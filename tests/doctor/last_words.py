"""Last words of trainings as others published them; each with where, which causes are in it, and figures in bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

KIB, MIB, GIB = 2**10, 2**20, 2**30
EXPANDABLE = (
    "If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid "
    "fragmentation.  See documentation for Memory Management  "
    "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
SPLIT = (
    "If reserved but unallocated memory is large try setting max_split_size_mb to avoid fragmentation.  See "
    "documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF"
)


class Said(NamedTuple):
    """``text`` stands at ``where``; ``causes`` are told, and no others; ``figures`` are read, and no others."""

    where: str
    text: str
    causes: tuple[str, ...]
    figures: dict[str, Any] = {}  # noqa: RUF012  never changed


GPU = (
    Said(
        "shllln/GenerativeGraph#5, torch 1.0",
        "RuntimeError: CUDA out of memory. Tried to allocate 1024.00 KiB (GPU 0; 11.17 GiB total capacity; 10.90 GiB "
        "already allocated; 576.00 KiB free; 30.96 MiB cached)",
        ("does_not_fit",),
        {"wanted": MIB, "total": 11.17 * GIB, "free": 576 * KIB, "allocated": 10.9 * GIB, "unallocated": 30.96 * MIB},
    ),
    Said(
        "pytorch/pytorch#16417, torch 1.0: more is free than was asked for",
        "RuntimeError: CUDA out of memory. Tried to allocate 12.50 MiB (GPU 0; 10.92 GiB total capacity; 8.57 MiB "
        "already allocated; 9.28 GiB free; 4.68 MiB cached)",
        ("refused_memory",),
    ),
    Said(
        "pytorch/pytorch#59778: the same, by less",
        "`CUDA out of memory. Tried to allocate 2.26 GiB (GPU 0; 6.00 GiB total capacity; 781.59 MiB already "
        "allocated; 3.03 GiB free; 1.24 GiB reserved in total by PyTorch) `",
        ("refused_memory",),
    ),
    Said(
        "CompVis/stable-diffusion#702",
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 192.00 MiB (GPU 0; 4.00 GiB total capacity; 3.08 GiB "
        "already allocated; 0 bytes free; 3.47 GiB reserved in total by PyTorch) If reserved memory is >> allocated "
        "memory try setting max_split_size_mb to avoid fragmentation. See documentation for Memory Management and "
        "PYTORCH_CUDA_ALLOC_CONF\nTime taken: 2m 24.41sTorch active/reserved: 3457/3576 MiB, Sys VRAM: 4096/4096 MiB",
        ("does_not_fit", "fragmentation"),
    ),
    Said(
        "Mukosame/AODA#9: somebody else has the card",
        "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 31.75 GiB total capacity; 612.33 MiB "
        "already allocated; 14.75 MiB free; 622.00 MiB reserved in total by PyTorch)",
        ("does_not_fit", "other_processes"),
    ),
    Said(
        "wxian3/NeuroLens#2, torch 2.1: one request larger than the card",
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 55.57 GiB. GPU 0 has a total capacty of "
        "12.00 GiB of which 9.02 GiB is free. Of the allocated memory 984.52 MiB is allocated by PyTorch, and 463.48 "
        f"MiB is reserved by PyTorch but unallocated. {SPLIT}",
        ("does_not_fit",),
    ),
    Said(
        "carolchenyx/MGFN#35, torch 2.1",
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.70 GiB. GPU 0 has a total capacty of "
        "6.00 GiB of which 0 bytes is free. Of the allocated memory 2.93 GiB is allocated by PyTorch, and 2.30 GiB is "
        f"reserved by PyTorch but unallocated. {SPLIT}",
        ("does_not_fit", "fragmentation"),
    ),
    Said(
        "light-and-ray/sd-webui-replacer#74: more in tensors than the card has",
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 27.12 GiB. GPU 0 has a total capacty of "
        "11.99 GiB of which 0 bytes is free. Of the allocated memory 16.16 GiB is allocated by PyTorch, and 144.59 "
        f"MiB is reserved by PyTorch but unallocated. {SPLIT}",
        ("does_not_fit", "spill"),
    ),
    Said(
        "pytorch/pytorch#16417, torch 2.2",
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.00 MiB. GPU 0 has a total capacity of "
        "23.65 GiB of which 11.06 MiB is free. Including non-PyTorch memory, this process has 23.60 GiB memory in "
        "use. Of the allocated memory 22.90 GiB is allocated by PyTorch, and 194.87 MiB is reserved by PyTorch but "
        f"unallocated. {EXPANDABLE}",
        ("does_not_fit",),
        {
            "wanted": 22 * MIB,
            "total": 23.65 * GIB,
            "free": 11.06 * MIB,
            "process": 23.6 * GIB,
            "allocated": 22.9 * GIB,
            "unallocated": 194.87 * MIB,
        },
    ),
    Said(
        "ROCm/TheRock#2118, torch 2.9: a limit that was set",
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 23.41 "
        "GiB of which 21.22 GiB is free. 1.05 GiB allowed; Of the allocated memory 1017.01 MiB is allocated by "
        "PyTorch, with 17.00 MiB allocated in private pools (e.g., HIP Graphs), and 54.99 MiB is reserved by PyTorch "
        f"but unallocated. {EXPANDABLE}",
        ("memory_limit",),
    ),
    Said(
        "pytorch/pytorch#175431, torch 2.9 on ROCm: 2 MiB of 203 GiB that are free",
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 MiB. GPU 7 has a total capacity of 287.98 "
        "GiB of which 203.49 GiB is free. Of the allocated memory 68.63 GiB is allocated by PyTorch, and 14.93 GiB is "
        f"reserved by PyTorch but unallocated. {EXPANDABLE}",
        ("refused_memory",),
    ),
    Said(
        "intel/intel-extension-for-pytorch#863, torch 2.8 on XPU: no more than 4 GiB at once",
        "torch.OutOfMemoryError: XPU out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total capacity of 15.11 "
        "GiB. Of the allocated memory 0 bytes is allocated by PyTorch, and 0 bytes is reserved by PyTorch but "
        "unallocated. Please use `empty_cache` to release all unoccupied cached memory.",
        ("refused_memory",),
        {"wanted": 4 * GIB, "total": 15.11 * GIB, "allocated": 0.0, "unallocated": 0.0},
    ),
    Said(
        "AIFSH/ComfyUI-ChatTTS#9, cudaMallocAsync",
        "torch.cuda.OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out of memory)\n"
        "Currently allocated     : 6.89 GiB\nRequested               : 320.00 MiB\n"
        "Device limit            : 23.69 GiB\nFree (according to CUDA): 2.94 MiB\n"
        "PyTorch limit (set by user-supplied memory fraction)\n                        : 17179869184.00 GiB\n",
        ("does_not_fit", "other_processes"),
        {"wanted": 320 * MIB, "total": 23.69 * GIB, "free": 2.94 * MIB, "allocated": 6.89 * GIB},
    ),
    Said(
        "pharmapsychotic/clip-interrogator-ext#74, torch 2.1 on a Mac",
        "MPS backend out of memory (MPS allocated: 6.04 GB, other allocations: 1.04 GB, max allowed: 6.77 GB). Tried "
        "to allocate 459.07 MB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for "
        "memory allocations (may cause system failure)",
        ("does_not_fit",),
    ),
    Said(
        "Comfy-Org/ComfyUI#7440, torch 2.6 on a Mac: mostly other things",
        "MPS backend out of memory (MPS allocated: 9.57 GiB, other allocations: 17.35 GiB, max allowed: 27.20 GiB). "
        "Tried to allocate 292.50 MiB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper "
        "limit for memory allocations (may cause system failure).",
        ("does_not_fit",),
    ),
    Said(
        "patrickbryant1/AFProfile#8, JAX",
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 "
        "bytes.\nBufferAssignment OOM Debugging.\nBufferAssignment stats:\n             parameter allocation:  "
        "372.76MiB\n              total allocation:   14.44GiB\n              total fragmentation:  680.30MiB (4.60%)",
        ("does_not_fit",),
        {"wanted": 4770354232.0},
    ),
    Said(
        "ecmwf-lab/ai-models-graphcast#18, JAX",
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Failed to allocate request for 2.99GiB "
        "(3206250496B) on device ordinal 0",
        ("does_not_fit",),
        {"wanted": 2.99 * GIB},
    ),
    Said(
        "kingoflolz/mesh-transformer-jax#66, older JAX",
        "RuntimeError: Resource exhausted: Failed to allocate request for 32.00MiB (33554432B) on device ordinal 0",
        ("does_not_fit",),
        {"wanted": 32.0 * MIB},
    ),
    Said(
        "tensorflow/tensorflow#42617",
        "OOM when allocating tensor with shape[320000,512] and type float on /job:localhost/replica:0/task:0/device:"
        "GPU:0 by allocator GPU_0_bfc",
        ("does_not_fit",),
    ),
    Said(
        "philip-huang/PIXOR#31, TensorFlow",
        "failed to allocate 17.79G (19104890880 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        ("does_not_fit",),
        {"wanted": 19104890880.0},
    ),
    Said(
        "QwenLM/Qwen3#873",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ("does_not_fit",),
    ),
    Said(
        "EleutherAI/lm-evaluation-harness#1689: memory, or an id beyond the vocabulary",
        "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        ("does_not_fit",),
    ),
    Said(
        "ggml-org/llama.cpp#1230",
        "CUDA error 2 at ggml-cuda.cu:359: out of memory",
        ("does_not_fit",),
    ),
    Said(
        "OpenMOSS/MOSS#328: pinned memory under WSL",
        "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other "
        "API call, so the stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1.",
        ("does_not_fit",),
    ),
)
MACHINE = (
    Said(
        "OSC's documentation, Slurm",
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=14604003.batch cgroup. Some of your processes may "
        "have been killed by the cgroup out-of-memory handler.",
        ("host_memory",),
    ),
    Said(
        "OSC's documentation, srun",
        "srun: error: o0616: task 0: Out Of Memory",
        ("host_memory",),
    ),
    Said(
        "an older Slurm",
        "slurmstepd: error: Exceeded step memory limit at some point.",
        ("host_memory",),
    ),
    Said(
        "linux-test-project/ltp#1080, CentOS 7",
        "kernel: Memory cgroup out of memory: Kill process 42424 (python) score 0 or sacrifice child\n"
        "kernel: Killed process 42424 (python), UID 0, total-vm:7296000kB, anon-rss:6291456kB, file-rss:0kB",
        ("host_memory",),
    ),
    Said(
        "reportportal/kubernetes#203, dmesg",
        "[ 7063.247407] Memory cgroup out of memory: Killed process 63214 (uwsgi) total-vm:3149468kB, "
        "anon-rss:164992kB, file-rss:52176kB, shmem-rss:92kB, UID:0 pgtables:1372kB oom_score_adj:986",
        ("host_memory",),
    ),
    Said(
        "lzhxmu/CPPO#6, torchrun",
        "[0]:\n  time      : 2025-05-21_15:43:03\n  rank      : 0 (local_rank: 0)\n  exitcode  : -9 (pid: 14750)\n"
        "  error_file: <N/A>\n  traceback : Signal 9 (SIGKILL) received by PID 14750",
        ("host_memory",),
    ),
    Said(
        "noelshin/selfmask#11, PyCharm",
        "Process finished with exit code 137 (interrupted by signal 9:SIGKILL)",
        ("host_memory",),
    ),
    Said(
        "bmaltais/kohya_ss#1065",
        "subprocess.CalledProcessError: Command '['python', 'train.py']' died with <Signals.SIGKILL: 9>.",
        ("host_memory",),
    ),
    Said(
        "hkchengrex/STCN#132",
        "RuntimeError: DataLoader worker (pid 46794) is killed by signal: Bus error. It is possible that dataloader's "
        "workers are out of shared memory. Please try to raise your shared memory limit.",
        ("shared_memory",),
    ),
    Said(
        "idiap/ESLAM#20",
        "RuntimeError: unable to write to file </torch_31911_952036340_6686>: No space left on device (28)",
        ("shared_memory",),
    ),
    Said(
        "MIC-DKFZ/nnUNet#294",
        "RuntimeError: unable to write to file </torch_15769_1517813162>",
        ("shared_memory",),
    ),
    Said(
        "pytorch/pytorch#20409",
        "RuntimeError: unable to resize file </torch_22438_3818345986> to the right size",
        ("shared_memory",),
    ),
    Said(
        "NCCL in a container",
        "nccl: misc/shmutils.cc:72 NCCL WARN Error: failed to extend /dev/shm/nccl-cXpnxC to 9637892 bytes\n"
        "RuntimeError: NCCL error: unhandled system error",
        ("shared_memory",),
    ),
    Said(
        "NVIDIA/Megatron-LM#878",
        "    sl = self._semlock = _multiprocessing.SemLock(\nOSError: [Errno 28] No space left on device",
        ("shared_memory",),
    ),
    Said(
        "zju3dv/NeuralRecon#91",
        "RuntimeError: Too many open files. Communication with the workers is no longer possible. Please increase the "
        "limit using `ulimit -n` in the shell or change the sharing strategy by calling "
        "`torch.multiprocessing.set_sharing_strategy('file_system')` at the beginning of your code",
        ("open_files",),
    ),
    Said("GoekeLab/m6anet#75", "RuntimeError: received 0 items of ancdata", ("open_files",)),
    Said(
        "pointborn.com",
        "OpenBLAS blas_thread_init: pthread_create: Resource temporarily unavailable\n"
        "OpenBLAS blas_thread_init: RLIMIT_NPROC 1024 current, 516033 max",
        ("no_threads",),
    ),
    Said(
        "a C++ program of many threads",
        "terminate called after throwing an instance of 'std::system_error'\n"
        "  what():  Resource temporarily unavailable",
        ("no_threads",),
    ),
)
