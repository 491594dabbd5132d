"""What may stand in the config file: the original llama-router's schema, extended, never renamed.

Every field carries its description and, where it counts something, its unit; the reference in
``docs/configuration.md`` is tested to be complete against them. The models are frozen and strict:
``"8082"`` is no port. Use ``load`` (or ``validate``) to build them: it tells the faults of a file
apart by line and checks what spans several entries. Each section stands in a file of its own; all
can be imported from here.
"""

from llama_router.config import fields
from llama_router.config.coexistence import GroupEntry, MatrixSettings
from llama_router.config.fields import Name, Version, setting
from llama_router.config.hub_settings import HubSettings
from llama_router.config.indirection import PeerEntry, ProfileEntry, SelectorEntry
from llama_router.config.model_settings import Filters, ModelEntry, ModelSettings
from llama_router.config.router_settings import (
    ApiKeyEntry,
    RouterSettings,
    default_key_name,
    is_loopback,
    public_bind_problem,
)
from llama_router.config.section import Section, merged
from llama_router.config.spawn_settings import (
    DEFAULT_COMMAND,
    NO_HEALTH_ENDPOINT,
    SpawnOverride,
    SpawnSettings,
)
from llama_router.config.values import Macros

__all__ = [
    "DEFAULT_COMMAND",
    "NO_HEALTH_ENDPOINT",
    "ApiKeyEntry",
    "Config",
    "Filters",
    "GroupEntry",
    "HubSettings",
    "MatrixSettings",
    "ModelEntry",
    "ModelSettings",
    "PeerEntry",
    "ProfileEntry",
    "RouterSettings",
    "SelectorEntry",
    "SpawnOverride",
    "SpawnSettings",
    "default_key_name",
    "is_loopback",
    "merged",
    "public_bind_problem",
]


class Config(Section):
    """The whole file."""

    version: Version = setting("1.0", "Version of this schema.")
    startup_model: str = setting(
        "", "Model loaded before the router accepts requests; empty: none.", max_length=1024
    )
    startup_profile: str = setting(
        "",
        "The one of `profiles` that is active from the start; empty: none.",
        max_length=fields.NAME_MAX_CHARS,
    )
    macros: Macros = setting({}, "Text that `${name}` stands for in all other values.", repr=False)
    router: RouterSettings = setting(RouterSettings(), "The router itself.")
    default_spawn: SpawnSettings = setting(SpawnSettings(), "How engines are started.")
    defaults: ModelSettings = setting(
        ModelSettings(), "Settings of all models, those without an entry too."
    )
    templates: dict[Name, ModelSettings] = setting(
        {}, "Named sets of settings for models to start from.", max_length=fields.LIST_MAX_COUNT
    )
    models: tuple[ModelEntry, ...] = setting(
        (),
        "Models with settings of their own; others are found without an entry.",
        strict=False,
        max_length=fields.MODELS_MAX_COUNT,
    )
    groups: dict[Name, GroupEntry] = setting(
        {},
        "How the models of a group get along; `models[].group` says which are in it.",
        max_length=fields.MODELS_MAX_COUNT,
    )
    matrix: MatrixSettings | None = setting(
        None, "Which models may run together, in place of groups."
    )
    selectors: dict[Name, SelectorEntry] = setting(
        {}, "Names that lead to one of several models.", max_length=fields.LIST_MAX_COUNT
    )
    profiles: dict[Name, ProfileEntry] = setting(
        {}, "Sets of names to switch between while running.", max_length=fields.LIST_MAX_COUNT
    )
    peers: dict[Name, PeerEntry] = setting(
        {},
        "Other machines with an OpenAI-compatible API, whose models are offered here.",
        max_length=fields.LIST_MAX_COUNT,
    )
    hub: HubSettings = setting(HubSettings(), "Where models are downloaded from, and how.")
