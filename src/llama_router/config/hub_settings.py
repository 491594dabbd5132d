"""``hub``: where models are downloaded from, and how."""

from llama_router.config import fields
from llama_router.config.fields import AllowedHost, HubEndpoint, Size, Token, setting
from llama_router.config.section import Section


class HubSettings(Section):
    """``hub``: Hugging Face, or what stands in for it."""

    endpoint: HubEndpoint = setting(
        "", "Where the hub is; empty: `HF_ENDPOINT`, else Hugging Face."
    )
    token: Token = setting(
        "",
        "Secret for gated and private repositories; empty: `HF_TOKEN`, else the one that `hf auth"
        " login` saved.",
        repr=False,
    )
    max_parallel_files: int = setting(
        4,
        "How many files are downloaded at a time.",
        ge=1,
        le=fields.PARALLEL_FILES_MAX_COUNT,
    )
    bandwidth: Size = setting(
        0, "Most bytes in a second of all downloads together; 0: no limit.", unit="per second"
    )
    offline: bool = setting(
        False, "Never ask the hub for anything; `HF_HUB_OFFLINE` does the same."
    )
    allowed_hosts: tuple[AllowedHost, ...] = setting(
        (),
        "Hosts, besides the hub's own, that it may send a download to.",
        strict=False,
        max_length=fields.LIST_MAX_COUNT,
    )
