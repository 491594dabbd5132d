"""llama-server's flags and the xllamacpp parameters they set (llama.cpp, common/arg.cpp).

What is missing cannot be set from Python (``--device``, ``--override-kv``, control vectors, logging
to files …), belongs to the router (downloads, llama-server's own router mode) or runs tools.
"""

import json

from llama_router.engines.embedded.flags import (
    Adapter,
    Constant,
    Flag,
    choice,
    integer,
    listed,
    number,
    switch,
    text,
    text_file,
    value,
)

_ON_OFF = {"on": True, "off": False, "1": True, "0": False}
_EXPERT_TENSORS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
_MAX_LAYERS = 10_000  # far above any model: each becomes one pattern
_MIB_BYTES = 1024 * 1024
_UNLIMITED_VERBOSITY = 2**31 - 1

_CACHE_TYPES = {
    name.lower(): Constant("ggml_type", f"GGML_TYPE_{name}")
    for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")
}
_POOLING = {
    name.lower(): Constant("llama_pooling_type", f"LLAMA_POOLING_TYPE_{name}")
    for name in ("NONE", "MEAN", "CLS", "LAST", "RANK")
}
_ROPE_SCALING = {
    name.lower(): Constant("llama_rope_scaling_type", f"LLAMA_ROPE_SCALING_TYPE_{name}")
    for name in ("NONE", "LINEAR", "YARN")
}
_FLASH_ATTENTION = {
    word: Constant("llama_flash_attn_type", f"LLAMA_FLASH_ATTN_TYPE_{name}")
    for word, name in (("on", "ENABLED"), ("off", "DISABLED"), ("auto", "AUTO"))
}
_SPLIT_MODES = {
    name.lower(): Constant("llama_split_mode", f"LLAMA_SPLIT_MODE_{name}")
    for name in ("NONE", "LAYER", "ROW", "TENSOR")
}
_LOAD_MODES = {
    word: Constant("llama_load_mode", f"LLAMA_LOAD_MODE_{name}")
    for word, name in (
        ("auto", "AUTO"),
        ("none", "NONE"),
        ("mmap", "MMAP"),
        ("mlock", "MLOCK"),
        ("mmap+mlock", "MMAP_MLOCK"),
        ("dio", "DIRECT_IO"),
    )
}
_LAZY_MODES = {
    name.lower(): Constant("llama_lazy_mode", f"LLAMA_LAZY_MODE_{name}")
    for name in ("ON", "OFF", "AUTO")
}
_NUMA = {
    name.lower(): Constant("ggml_numa_strategy", f"GGML_NUMA_STRATEGY_{name}")
    for name in ("DISTRIBUTE", "ISOLATE", "NUMACTL")
}
_PRIORITIES = {
    word: Constant("ggml_sched_priority", f"GGML_SCHED_PRIO_{name}")
    for word, name in (
        ("-1", "LOW"),
        ("0", "NORMAL"),
        ("1", "MEDIUM"),
        ("2", "HIGH"),
        ("3", "REALTIME"),
    )
}
_REASONING_FORMATS = {
    word: Constant("common_reasoning_format", f"COMMON_REASONING_FORMAT_{name}")
    for word, name in (
        ("none", "NONE"),
        ("auto", "AUTO"),
        ("deepseek", "DEEPSEEK"),
        ("deepseek-legacy", "DEEPSEEK_LEGACY"),
    )
}
_SPECULATIVE_TYPES = {
    name.lower().replace("_", "-"): Constant(
        "common_speculative_type", f"COMMON_SPECULATIVE_TYPE_{name}"
    )
    for name in (
        "NONE",
        "DRAFT_SIMPLE",
        "DRAFT_EAGLE3",
        "DRAFT_MTP",
        "DRAFT_DFLASH",
        "DRAFT_DSPARK",
        "NGRAM_SIMPLE",
        "NGRAM_MAP_K",
        "NGRAM_MAP_K4V",
        "NGRAM_MOD",
        "NGRAM_CACHE",
    )
}


def layers(raw: str) -> int:
    """Read how many layers go to the GPU."""
    return {"auto": -1, "all": -2}[raw] if raw in ("auto", "all") else integer(raw)


def seed(raw: str) -> int:
    """Read a seed; -1 is a random one."""
    # LLAMA_DEFAULT_SEED is the unsigned form of -1.
    return int(raw) % 2**32 if raw.lstrip("-").isdigit() else integer(raw)


def reciprocal(raw: str) -> float:
    """Read a scale that llama.cpp keeps the other way round."""
    scale = number(raw)
    if scale == 0:
        raise ValueError("it must not be zero")
    return 1.0 / scale


def _mebibytes(raw: str) -> int:
    return integer(raw) * _MIB_BYTES


def _adapter(raw: str) -> Adapter:
    return Adapter(raw, 1.0)


def _scaled_adapter(raw: str) -> Adapter:
    path, colon, scale = raw.rpartition(":")
    if not colon:
        raise ValueError("it has to be FILE:SCALE")
    return Adapter(path, number(scale))


def first_experts(raw: str) -> tuple[str, ...]:
    """Read of how many layers the experts stay in RAM."""
    count = integer(raw)
    if not 0 <= count <= _MAX_LAYERS:
        raise ValueError(f"it has to be between 0 and {_MAX_LAYERS}")
    return tuple(rf"blk\.{layer}{_EXPERT_TENSORS}=CPU" for layer in range(count))


def _template_arguments(raw: str) -> dict[str, str]:
    try:
        arguments = json.loads(raw)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ValueError("it has to be a JSON object")  # noqa: TRY004 - a bad value, not a bug
    return {name: json.dumps(argument) for name, argument in arguments.items()}


def _pair(
    path: str, yes: tuple[str, ...], no: tuple[str, ...], *, inverted: bool = False
) -> list[Flag]:
    return [switch({path: not inverted}, *yes), switch({path: inverted}, *no)]


_MODEL = [
    value("model.path", text, "-m", "--model"),
    value("model_alias", listed(text), "-a", "--alias"),
    value("model_tags", listed(text), "--tags"),
    value("n_gpu_layers", layers, "-ngl", "--gpu-layers", "--n-gpu-layers"),
    value("split_mode", choice(_SPLIT_MODES), "-sm", "--split-mode"),
    value("tensor_split", listed(number), "-ts", "--tensor-split"),
    value("main_gpu", integer, "-mg", "--main-gpu"),
    value("fit_params", choice(_ON_OFF), "-fit", "--fit", default="on"),
    value("fit_params_target", listed(_mebibytes), "-fitt", "--fit-target"),
    value("fit_params_min_ctx", integer, "-fitc", "--fit-ctx"),
    value("load_mode", choice(_LOAD_MODES), "-lm", "--load-mode"),
    value("lazy_mode", choice(_LAZY_MODES), "-lzm", "--lazy-mode"),
    value("numa", choice(_NUMA), "--numa"),
    value("tensor_buft_overrides", listed(text), "-ot", "--override-tensor", appends=True),
    switch({"tensor_buft_overrides": (f"{_EXPERT_TENSORS}=CPU",)}, "-cmoe", "--cpu-moe")._replace(
        appends=True
    ),
    value("tensor_buft_overrides", first_experts, "-ncmoe", "--n-cpu-moe", appends=True),
    switch({"check_tensors": True}, "--check-tensors"),
    switch({"no_host": True}, "--no-host"),
    *_pair("no_extra_bufts", ("--repack",), ("-nr", "--no-repack"), inverted=True),
    *_pair("no_op_offload", ("--op-offload",), ("--no-op-offload",), inverted=True),
    *_pair("warmup", ("--warmup",), ("--no-warmup",)),
    switch({"offline": True}, "--offline"),
    value("lora_adapters", listed(_adapter), "--lora", appends=True),
    value("lora_adapters", listed(_scaled_adapter), "--lora-scaled", appends=True),
    switch({"lora_init_without_apply": True}, "--lora-init-without-apply"),
]

_MULTIMODAL = [
    value("mmproj.path", text, "-mm", "--mmproj"),
    *_pair("no_mmproj", ("--mmproj-auto",), ("--no-mmproj", "--no-mmproj-auto"), inverted=True),
    *_pair("mmproj_use_gpu", ("--mmproj-offload",), ("--no-mmproj-offload",)),
    value("mmproj_device", text, "-mmdev", "--mmproj-device"),
    value("image_min_tokens", integer, "--image-min-tokens"),
    value("image_max_tokens", integer, "--image-max-tokens"),
    value("mtmd_batch_max_tokens", integer, "--mtmd-batch-max-tokens"),
    value("video_fps", number, "--video-fps"),
    value("video_timestamp_interval_ms", integer, "--video-timestamp-interval"),
    value("video_ffmpeg_bin_dir", text, "--video-ffmpeg-dir"),
]

_CONTEXT = [
    value("n_ctx", integer, "-c", "--ctx-size"),
    value("n_parallel", integer, "-np", "--parallel"),
    *_pair("kv_unified", ("-kvu", "--kv-unified"), ("-no-kvu", "--no-kv-unified")),
    value("kv_unified_per_slot", integer, "--kv-unified-per-slot"),
    value("n_batch", integer, "-b", "--batch-size"),
    value("n_ubatch", integer, "-ub", "--ubatch-size"),
    *_pair("cont_batching", ("-cb", "--cont-batching"), ("-nocb", "--no-cont-batching")),
    value("cache_type_k", choice(_CACHE_TYPES), "-ctk", "--cache-type-k"),
    value("cache_type_v", choice(_CACHE_TYPES), "-ctv", "--cache-type-v"),
    value("cache_ram_mib", integer, "-cram", "--cache-ram"),
    *_pair("cache_prompt", ("--cache-prompt",), ("--no-cache-prompt",)),
    *_pair("cache_idle_slots", ("--cache-idle-slots",), ("--no-cache-idle-slots",)),
    value("n_cache_reuse", integer, "--cache-reuse"),
    value("n_ctx_checkpoints", integer, "-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"),
    value("checkpoint_min_step", integer, "-cms", "--checkpoint-min-step"),
    *_pair("ctx_shift", ("--context-shift",), ("--no-context-shift",)),
    *_pair("no_kv_offload", ("-kvo", "--kv-offload"), ("-nkvo", "--no-kv-offload"), inverted=True),
    switch({"swa_full": True}, "--swa-full"),
    value("flash_attn_type", choice(_FLASH_ATTENTION), "-fa", "--flash-attn", default="on"),
    value("rope_scaling_type", choice(_ROPE_SCALING), "--rope-scaling"),
    value("rope_freq_scale", reciprocal, "--rope-scale"),
    value("rope_freq_base", number, "--rope-freq-base"),
    value("rope_freq_scale", number, "--rope-freq-scale"),
    value("yarn_orig_ctx", integer, "--yarn-orig-ctx"),
    value("yarn_ext_factor", number, "--yarn-ext-factor"),
    value("yarn_attn_factor", number, "--yarn-attn-factor"),
    value("yarn_beta_slow", number, "--yarn-beta-slow"),
    value("yarn_beta_fast", number, "--yarn-beta-fast"),
]

_THREADS = [
    value("cpuparams.n_threads", integer, "-t", "--threads"),
    value("cpuparams_batch.n_threads", integer, "-tb", "--threads-batch"),
    value("cpuparams.priority", choice(_PRIORITIES), "--prio"),
    value("cpuparams_batch.priority", choice(_PRIORITIES), "--prio-batch"),
    value("cpuparams.poll", integer, "--poll"),
    value("cpuparams_batch.poll", integer, "--poll-batch"),
    value("cpuparams.strict_cpu", choice(_ON_OFF), "--cpu-strict"),
    value("cpuparams_batch.strict_cpu", choice(_ON_OFF), "--cpu-strict-batch"),
    *(
        switch({"no_perf": no_perf, "sampling.no_perf": no_perf}, name)
        for name, no_perf in (("--perf", False), ("--no-perf", True))
    ),
]

_SERVER = [
    value("hostnames", listed(text), "--host"),
    value("port", integer, "--port"),
    switch({"reuse_port": True}, "--reuse-port"),
    value("api_prefix", text, "--api-prefix"),
    value("api_keys", listed(text), "--api-key"),
    value("cors_origins", text, "--cors-origins"),
    value("cors_methods", text, "--cors-methods"),
    value("cors_headers", text, "--cors-headers"),
    *_pair("cors_credentials", ("--cors-credentials",), ("--no-cors-credentials",)),
    value(("timeout_read", "timeout_write"), integer, "-to", "--timeout"),
    value("sse_ping_interval", integer, "--sse-ping-interval"),
    value("n_threads_http", integer, "--threads-http"),
    switch({"endpoint_metrics": True}, "--metrics"),
    switch({"endpoint_props": True}, "--props"),
    *_pair("endpoint_slots", ("--slots",), ("--no-slots",)),
    value("slot_save_path", text, "--slot-save-path"),
    value("slot_prompt_similarity", number, "-sps", "--slot-prompt-similarity"),
    value("media_path", text, "--media-path"),
    value("sleep_idle_seconds", integer, "--sleep-idle-seconds"),
    *_pair("ui", ("--ui", "--webui"), ("--no-ui", "--no-webui")),
    value("verbosity", integer, "-lv", "--verbosity", "--log-verbosity"),
    switch({"verbosity": _UNLIMITED_VERBOSITY}, "-v", "--verbose", "--log-verbose"),
]

_CHAT_AND_EMBEDDINGS = [
    *_pair("use_jinja", ("--jinja",), ("--no-jinja",)),
    value("chat_template", text, "--chat-template"),
    value("chat_template", text_file, "--chat-template-file"),
    value("default_template_kwargs", _template_arguments, "--chat-template-kwargs"),
    *_pair("prefill_assistant", ("--prefill-assistant",), ("--no-prefill-assistant",)),
    *_pair("force_pure_content_parser", ("--skip-chat-parsing",), ("--no-skip-chat-parsing",)),
    value("reasoning_format", choice(_REASONING_FORMATS), "--reasoning-format"),
    value(
        "enable_reasoning",
        choice({"on": 1, "off": 0, "auto": -1}),
        "-rea",
        "--reasoning",
        default="on",
    ),
    value("sampling.reasoning_budget_tokens", integer, "--reasoning-budget"),
    value("sampling.reasoning_budget_message", text, "--reasoning-budget-message"),
    switch({"special": True}, "-sp", "--special"),
    value("antiprompt", lambda raw: (raw,), "-r", "--reverse-prompt", appends=True),
    switch({"embedding": True}, "--embedding", "--embeddings"),
    switch({"embedding": True, "pooling_type": _POOLING["rank"]}, "--rerank", "--reranking"),
    value("pooling_type", choice(_POOLING), "--pooling"),
    value("embd_normalize", integer, "--embd-normalize"),
]

_SAMPLING = [
    value("n_predict", integer, "-n", "--predict", "--n-predict"),
    value("n_keep", integer, "--keep"),
    *_pair("escape", ("-e", "--escape"), ("--no-escape",)),
    value("sampling.samplers", text, "--samplers", marks="SAMPLERS"),
    value("sampling.seed", seed, "-s", "--seed"),
    switch({"sampling.ignore_eos": True}, "--ignore-eos"),
    value("sampling.temp", number, "--temp", "--temperature", marks="TEMP"),
    value("sampling.top_k", integer, "--top-k", marks="TOP_K"),
    value("sampling.top_p", number, "--top-p", marks="TOP_P"),
    value("sampling.min_p", number, "--min-p", marks="MIN_P"),
    value("sampling.typ_p", number, "--typical", "--typical-p"),
    value("sampling.xtc_probability", number, "--xtc-probability", marks="XTC_PROBABILITY"),
    value("sampling.xtc_threshold", number, "--xtc-threshold", marks="XTC_THRESHOLD"),
    value("sampling.penalty_last_n", integer, "--repeat-last-n", marks="PENALTY_LAST_N"),
    value("sampling.penalty_repeat", number, "--repeat-penalty", marks="PENALTY_REPEAT"),
    value("sampling.penalty_present", number, "--presence-penalty"),
    value("sampling.penalty_freq", number, "--frequency-penalty"),
    value("sampling.dry_multiplier", number, "--dry-multiplier"),
    value("sampling.dry_base", number, "--dry-base"),
    value("sampling.dry_allowed_length", integer, "--dry-allowed-length"),
    value("sampling.dry_penalty_last_n", integer, "--dry-penalty-last-n"),
    value("sampling.adaptive_target", number, "--adaptive-target"),
    value("sampling.adaptive_decay", number, "--adaptive-decay"),
    value("sampling.dynatemp_range", number, "--dynatemp-range"),
    value("sampling.dynatemp_exponent", number, "--dynatemp-exp"),
    value("sampling.mirostat", integer, "--mirostat", marks="MIROSTAT"),
    value("sampling.mirostat_eta", number, "--mirostat-lr", marks="MIROSTAT_ETA"),
    value("sampling.mirostat_tau", number, "--mirostat-ent", marks="MIROSTAT_TAU"),
    switch({"sampling.backend_sampling": True}, "-bs", "--backend-sampling"),
]

_SPECULATIVE = [
    value("speculative.types", listed(choice(_SPECULATIVE_TYPES)), "--spec-type"),
    value("speculative.draft.mparams.path", text, "--spec-draft-model", "-md", "--model-draft"),
    value(
        "speculative.draft.n_gpu_layers",
        layers,
        "--spec-draft-ngl",
        "-ngld",
        "--gpu-layers-draft",
        "--n-gpu-layers-draft",
    ),
    value("speculative.draft.devices", text, "--spec-draft-device", "-devd", "--device-draft"),
    value(
        "speculative.draft.cpuparams.n_threads",
        integer,
        "--spec-draft-threads",
        "-td",
        "--threads-draft",
    ),
    value(
        "speculative.draft.cpuparams_batch.n_threads",
        integer,
        "--spec-draft-threads-batch",
        "-tbd",
        "--threads-batch-draft",
    ),
    value(
        "speculative.draft.cache_type_k",
        choice(_CACHE_TYPES),
        "--spec-draft-type-k",
        "-ctkd",
        "--cache-type-k-draft",
    ),
    value(
        "speculative.draft.cache_type_v",
        choice(_CACHE_TYPES),
        "--spec-draft-type-v",
        "-ctvd",
        "--cache-type-v-draft",
    ),
    value("speculative.draft.n_max", integer, "--spec-draft-n-max"),
    value("speculative.draft.n_min", integer, "--spec-draft-n-min"),
    value("speculative.draft.p_split", number, "--spec-draft-p-split", "--draft-p-split"),
    value("speculative.draft.p_min", number, "--spec-draft-p-min", "--draft-p-min"),
    value("speculative.ngram_mod.n_min", integer, "--spec-ngram-mod-n-min"),
    value("speculative.ngram_mod.n_max", integer, "--spec-ngram-mod-n-max"),
    value("speculative.ngram_mod.n_match", integer, "--spec-ngram-mod-n-match"),
    *(
        value(f"speculative.{attribute}.{setting}", integer, f"--spec-{kind}-{option}")
        for kind, attribute in (
            ("ngram-simple", "ngram_simple"),
            ("ngram-map-k", "ngram_map_k"),
            ("ngram-map-k4v", "ngram_map_k4v"),
        )
        for option, setting in (
            ("size-n", "size_n"),
            ("size-m", "size_m"),
            ("min-hits", "min_hits"),
        )
    ),
]

TABLE: tuple[Flag, ...] = (
    *_MODEL,
    *_MULTIMODAL,
    *_CONTEXT,
    *_THREADS,
    *_SERVER,
    *_CHAT_AND_EMBEDDINGS,
    *_SAMPLING,
    *_SPECULATIVE,
)
