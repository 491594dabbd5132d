import pytest

from llama_router.core.events import ExitCause
from llama_router.engines.exits import classify, last_words


def judge(
    returncode: int | None,
    *tail: str,
    is_asked: bool = False,
    is_killed: bool = False,
    is_starting: bool = True,
    is_address_foreign: bool = False,
    was_oom_kill: bool | None = None,
) -> tuple[str, ExitCause]:
    return classify(
        returncode,
        tail,
        is_asked=is_asked,
        is_killed=is_killed,
        is_starting=is_starting,
        is_address_foreign=is_address_foreign,
        was_oom_kill=was_oom_kill,
    )


@pytest.mark.parametrize(
    "line",
    [
        "CUDA error: out of memory",
        "alloc_buffer: allocating 9216.00 MiB on device 0: cudaMalloc failed: out of memory",
        "alloc_tensor_range: failed to allocate CUDA0 buffer of size 1073741824",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "mmap failed: Cannot allocate memory",
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        "unable to allocate backend buffer",
        "torch.cuda.OutOfMemoryError: CUDA out of memory.",
        "errno ENOMEM",
        # llama.cpp, b11434: the lines that its backends write before it gives up.
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4403.49 MiB on device 0:"
            " cudaMalloc failed: out of memory"
        ),
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        (
            "llama_init_from_model: failed to initialize the context: failed to allocate buffer for"
            " kv cache"
        ),
        "graph_reserve: failed to allocate compute buffers",
        "ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 8589934592",
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 137438953504",
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 8192.00 MB)",
        "ggml_vulkan: Device memory allocation of size 1073741824 failed.",
        "Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
        "sycl_buffer_type_alloc_buffer: can't allocate 4294967296 Bytes of memory on device",
        "error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    ],
)
def test_out_of_memory_is_recognised(line: str) -> None:
    assert judge(1, "loading", line, "bye")[1] is ExitCause.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "warning",
    [
        "warning: failed to mlock 1048576-byte buffer: Cannot allocate memory",
        "ggml_cuda_host_malloc: failed to allocate 512.00 MiB of pinned memory: out of memory",
    ],
)
def test_memory_that_could_not_be_locked_or_pinned_is_no_reason_to_end(warning: str) -> None:
    assert judge(1, warning, "error: the file is corrupted")[1] is ExitCause.EXITED


def test_words_on_memory_mean_nothing_when_it_ended_well_or_was_asked_to() -> None:
    assert judge(0, "out of memory")[1] is ExitCause.EXITED
    assert judge(1, "out of memory", is_asked=True) == ("exited with status 1", ExitCause.EXITED)


@pytest.mark.parametrize("returncode", [-9, 137])
def test_a_foreign_sigkill_is_the_kernels_for_memory(returncode: int) -> None:
    assert judge(returncode)[1] is ExitCause.OUT_OF_MEMORY
    assert judge(returncode, was_oom_kill=True)[1] is ExitCause.OUT_OF_MEMORY
    assert judge(returncode, is_killed=True)[1] is ExitCause.EXITED
    # The kernel says that it was somebody else.
    assert judge(returncode, was_oom_kill=False)[1] is ExitCause.EXITED


@pytest.mark.parametrize(
    "line",
    [
        "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080",
        "OSError: [Errno 98] Address already in use",
        "[Errno 48] error while attempting to bind: address already in use",
    ],
)
def test_a_taken_address_is_recognised_only_while_starting(line: str) -> None:
    assert judge(1, line)[1] is ExitCause.ADDRESS_IN_USE
    assert judge(1, line, is_starting=False)[1] is ExitCause.EXITED


def test_a_foreigner_on_the_port_explains_a_failed_start() -> None:
    assert judge(1, is_address_foreign=True)[1] is ExitCause.ADDRESS_IN_USE


def test_the_reason_says_that_memory_ran_out() -> None:
    assert judge(-9)[0] == "probably ran out of memory (killed by SIGKILL)"
    text = "CUDA error: out of memory"
    assert judge(1, text)[0] == f"ran out of memory (exited with status 1: {text})"


def test_reasons_name_status_signal_and_last_words() -> None:
    assert judge(3)[0] == "exited with status 3"
    assert judge(-11, "error: x", "bye")[0] == "killed by SIGSEGV: error: x"
    assert judge(-99)[0] == "killed by signal 99"
    assert "supervises" in judge(None)[0]


def test_last_words_prefer_the_fault_over_what_follows_it() -> None:
    assert last_words(["", "failed to load model", "cleaning up", " "]) == "failed to load model"
    assert last_words(["one", "two "]) == "two"
    assert last_words([]) == ""
    assert len(last_words(["e" * 5_000])) == 300
