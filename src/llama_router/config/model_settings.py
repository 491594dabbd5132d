"""Everything that a model may have set: by default, by a template, or by its own entry.

What a layer does not set is told by ``model_fields_set``; ``resolve`` lays them over each other.
"""

from typing import Literal

from pydantic import Field

from llama_router.config import fields
from llama_router.config.fields import (
    FilePath,
    ModelNameSent,
    Name,
    Priority,
    SizeOrSizes,
    TemplateNames,
    duration,
    setting,
)
from llama_router.config.section import Section
from llama_router.config.spawn_settings import SpawnOverride
from llama_router.config.values import BodyKey, BodyValues, JsonMap, Macros, Parameters


class Filters(Section):
    """``filters``: what is changed in the JSON of a request before the engine gets it."""

    strip_params: tuple[BodyKey, ...] = setting(
        (),
        "Keys that are taken out.",
        strict=False,
        max_length=fields.LIST_MAX_COUNT,
    )
    set_params: BodyValues = setting(
        {}, "Keys that are set, after that, to these values whatever was sent."
    )
    set_params_by_id: dict[Name, BodyValues] = setting(
        {},
        "The same for requests that named the model so, over `set_params`; each of these names is"
        " an alias.",
        max_length=fields.LIST_MAX_COUNT,
    )


class ModelSettings(Section):
    """``defaults``, ``templates.*`` and ``models[]``: what holds for a model."""

    spawn: SpawnOverride = setting(SpawnOverride(), "What is different from `default_spawn`.")
    parameters: Parameters = setting(
        {},
        "Options of the engine by their long names, such as `ctx-size: 8192`, put where the command"
        " has `$parameters`, else at its end.",
    )
    group: str = setting(
        "",
        "A named group runs together, and beside no model outside it; empty: memory and"
        " `max_loaded` alone decide.",
        max_length=fields.NAME_MAX_CHARS,
    )
    memory: SizeOrSizes | None = setting(
        None,
        "What it takes, for engines of which that cannot be told from the file: one size, on the"
        " first graphics card or else of RAM, or one for each device; absent: estimated, then"
        " measured.",
    )
    ttl_s: float | None = duration(
        None, "As `router.ttl_s`, for this model; absent: that, 0: never.", can_be_0=True
    )
    pinned: bool = setting(
        False, "Once loaded it stays: neither `ttl_s` nor other models unload it."
    )
    priority: Priority = setting(
        0, "The higher is loaded first, and never makes room early for a lower one."
    )
    max_in_flight: int = setting(
        0,
        "Most requests that its engine gets at a time, the others wait; 0: as many as its command"
        " gives it slots, or any number.",
        ge=0,
        le=fields.CONNECTIONS_MAX_COUNT,
    )
    max_waiting: int = setting(
        0,
        "Most requests that may wait for it, more get 429; 0: as `router.max_waiting`.",
        ge=0,
        le=fields.WAITING_MAX_COUNT,
    )
    max_requests: int = setting(
        0,
        "Most requests that may run and wait for it together, more get 429; 0: any number, as far"
        " as `max_waiting` allows.",
        ge=0,
        le=fields.WAITING_MAX_COUNT,
    )
    min_residency_s: float | None = duration(
        None, "As `router.min_residency_s`, for this model; absent: that.", can_be_0=True
    )
    ready_timeout_s: float | None = duration(
        None, "As `router.ready_timeout_s`, for this model; absent: that."
    )
    stop_grace_s: float | None = duration(
        None, "As `router.stop_grace_s`, for this model; absent: that."
    )
    connection_timeout_s: float | None = duration(
        None, "As `router.connection_timeout_s`, for this model; absent: that."
    )
    read_timeout_s: float | None = duration(
        None, "As `router.read_timeout_s`, for this model; absent: that."
    )
    first_byte_timeout_s: float | None = duration(
        None,
        "As `router.first_byte_timeout_s`, for this model; absent: that, 0: no limit.",
        can_be_0=True,
    )
    notify_model_swap: bool | None = setting(
        None, "As `router.notify_model_swap`, for this model; absent: that."
    )
    filters: Filters = setting(
        Filters(), "What is changed in requests before the engine gets them."
    )
    use_model_name: ModelNameSent = setting(
        "", "What the engine gets as `model` in place of the name that was asked for; empty: that."
    )
    unlisted: bool = setting(
        False, "Whether lists of models leave it out; it can be asked for all the same."
    )
    title: str = setting("", "A name for people, shown in lists.", max_length=fields.NAME_MAX_CHARS)
    description: str = setting(
        "", "What it is good for, shown in lists.", max_length=fields.TEXT_MAX_CHARS
    )
    metadata: JsonMap = setting({}, "Anything else that lists of models are to show of it.")
    capabilities: JsonMap = setting(
        {},
        "What it can do, where that is not told by its file: `in` and `out` (lists of `text`,"
        " `image`, `audio`), `tools`, `reranker`, `context` (tokens).",
    )
    macros: Macros = setting(
        {},
        "Macros for the text of this section, over those of the file's own `macros`.",
        repr=False,
    )


class ModelEntry(ModelSettings):
    """``models[]``: one model."""

    name: Name = Field(description="How requests name it.")
    path: FilePath = setting("", "The GGUF file; empty if the command needs none.")
    state: Literal["manual", "auto"] = setting(
        "manual", "`auto` entries come and go with their files, `manual` ones stay."
    )
    aliases: tuple[Name, ...] = setting(
        (), "Further names that requests may use.", strict=False, max_length=fields.LIST_MAX_COUNT
    )
    mmproj: FilePath = setting(
        "", "The projector file of a vision or audio model; empty: one found beside the model."
    )
    template: TemplateNames = setting(
        (), "The template, or templates, that it starts from; later ones over earlier ones."
    )
