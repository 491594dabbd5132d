"""Names that lead elsewhere: to one of several models, or to another machine."""

from typing import Annotated, Literal

from pydantic import Field

from llama_router.config import fields
from llama_router.config.fields import HttpUrl, Name, PinTarget, Token, duration, setting
from llama_router.config.model_settings import Filters
from llama_router.config.section import Section
from llama_router.config.values import JsonMap


class SelectorEntry(Section):
    """``selectors.*``: a name that leads to one of several models."""

    strategy: Literal["warm", "pin", "spillover"] = Field(
        description="Which target a request gets: a loaded one, else the first (`warm`); always the"
        " first, until another is pinned (`pin`); the first that has fewer than `spillover`"
        " requests (`spillover`)."
    )
    targets: Annotated[
        tuple[Name, ...], Field(strict=False, min_length=1, max_length=fields.LIST_MAX_COUNT)
    ] = Field(description="Models, by name or alias, in the order of preference.")
    spillover: int = setting(
        1,
        "How many requests a target has before the next one gets some.",
        ge=1,
        le=fields.CONNECTIONS_MAX_COUNT,
    )
    title: str = setting("", "A name for people, shown in lists.", max_length=fields.NAME_MAX_CHARS)
    description: str = setting(
        "", "What it is good for, shown in lists.", max_length=fields.TEXT_MAX_CHARS
    )
    unlisted: bool = setting(False, "Whether lists of models leave it out.")
    metadata: JsonMap = setting({}, "Anything else that lists of models are to show of it.")


class ProfileEntry(Section):
    """``profiles.*``: where names lead while this profile is the active one."""

    description: str = setting(
        "", "What it is for, shown where one is chosen.", max_length=fields.TEXT_MAX_CHARS
    )
    pins: dict[Name, PinTarget] = setting(
        {},
        "Names that clients use, and the model that each leads to; empty: such a request is"
        " refused.",
        max_length=fields.LIST_MAX_COUNT,
    )


class PeerEntry(Section):
    """``peers.*``: another machine's models, as if they were here."""

    url: HttpUrl = Field(description="Where its OpenAI-compatible API is, without `/v1`.")
    api_key: Token = setting("", "Secret that is sent to it; empty: none.", repr=False)
    models: tuple[Name, ...] = setting(
        (),
        "Names of its models; none: it is asked for them.",
        strict=False,
        max_length=fields.LIST_MAX_COUNT,
    )
    filters: Filters = setting(Filters(), "What is changed in requests before it gets them.")
    connection_timeout_s: float = duration(30, "Longest wait for a connection to it.")
    read_timeout_s: float = duration(600, "Longest silence within an answer.")
    first_byte_timeout_s: float = duration(
        0, "Longest silence before the first byte of an answer; 0: no limit.", can_be_0=True
    )
