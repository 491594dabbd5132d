"""Where the name in a request leads: to a model of ours, through a selector, or to a peer's.

In this order: what the active profile pins, selectors, models by id or by any other name of
theirs, models of peers.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from llama_router.catalog.model import CatalogModel
from llama_router.catalog.resolve import AmbiguousModelError, UnknownModelError
from llama_router.config.schema import Config, ModelEntry, RouterSettings
from llama_router.proxy.errors import BadRequestError, ModelNotFoundError
from llama_router.proxy.gate import Target, Timeouts
from llama_router.proxy.rewrite import Rewrite, make_rewrite
from llama_router.runtime.roster import Roster, RosterModel
from llama_router.runtime.selectors import Standing, choose

ALIAS = "alias"
SELECTOR = "selector"
PEER = "peer"


class Listed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A name as lists of models show it.

    ``kind`` is one of alias, selector, peer. ``model``: the id of the model that it leads to; empty
    for selectors.
    """

    name: str
    kind: str
    model: str = ""
    title: str = ""
    description: str = ""
    metadata: Mapping[str, Any] = {}


class PeerNames(Protocol):
    """The models of peers, as far as names go."""

    def target(self, name: str) -> Target | None:
        """Return where requests of this name go; None when it is no peer's."""

    def listed(self) -> Iterator[tuple[str, str]]:
        """Return the names that lists show, each with its peer's."""

    def standing(self, model: str) -> Standing | None:
        """Return how busy a model is, by ``Target.model``; None for one that is no peer's."""


class Names:
    """All names of one config. Never changed but for the profile: a reload makes another.

    ``look`` gives how a model is doing, by its id; None for one that is not known.
    """

    def __init__(
        self,
        roster: Roster,
        config: Config,
        *,
        look: Callable[[str], Standing | None],
        peers: PeerNames | None = None,
        profile: str = "",
    ) -> None:
        self.catalog = roster.catalog
        self._roster = roster
        self._config = config
        self._look = look
        self._peers = peers
        self._router = config.router
        self._selectors = config.selectors
        # Only of names that lead to the same model for as long as these names hold.
        self._fixed: dict[str, Target] = {}
        self.profile = ""
        self._pins: Mapping[str, str] = {}
        if profile in config.profiles:
            self.activate(profile)

    def activate(self, profile: str) -> None:
        """Let the pins of this profile hold; of none when empty. Raises KeyError."""
        self._pins = self._config.profiles[profile].pins if profile else {}
        self.profile = profile
        self._fixed = {}

    @property
    def profiles(self) -> Mapping[str, Any]:
        """All profiles of the config, by name."""
        return self._config.profiles

    def is_off(self, name: str) -> bool:
        """Tell whether the active profile has switched this name off."""
        return self._pins.get(name) == ""

    def resolve(self, name: str) -> Target:
        """Return where requests of this name go. Raises a RequestError."""
        target = self._fixed.get(name)
        return target if target is not None else self._resolve(name)

    def _resolve(self, name: str) -> Target:
        meant = self._pins.get(name, name)
        if not meant:
            raise ModelNotFoundError(
                f"model '{name}' is switched off by the profile '{self.profile}'", param="model"
            )
        selector = self._selectors.get(meant)
        if selector is not None:
            return self._target(choose(selector, self._standing), asked=name)
        target = self._target(meant, asked=name)
        if target.door is None:
            self._fixed[name] = target
        return target

    def find(self, name: str) -> CatalogModel:
        """Return our own model that a name leads to, be it valid or not. Raises a RequestError."""
        try:
            return self.catalog.resolve(name)
        except UnknownModelError as error:
            raise ModelNotFoundError(str(error), param="model") from None
        except AmbiguousModelError as error:
            raise BadRequestError(str(error), param="model") from None

    def resolve_prefix(self, text: str) -> Target | None:
        """Return where the longest name leads that a path begins with; None if there is none.

        These are names of our models, and those that the active profile pins. Raises a
        RequestError.
        """
        pinned = self._longest_pin(text)
        try:
            found = self.catalog.longest_prefix(text)
        except AmbiguousModelError as error:
            if pinned is None or len(error.name) > len(pinned):
                raise BadRequestError(str(error), param="model") from None
            found = None
        if pinned is not None and (found is None or len(text) - len(found[1]) <= len(pinned)):
            return msgspec.structs.replace(self.resolve(pinned), rest=text[len(pinned) :])
        if found is None:
            return None
        model, rest = found
        name = text[: len(text) - len(rest)]
        return msgspec.structs.replace(self._own_target(model, name, name), rest=rest)

    def _longest_pin(self, text: str) -> str | None:
        """Return the longest of the names that are pinned, of those that a path begins with."""
        path = f"{text}/"
        return max(
            (name for name in self._pins if path.startswith(f"{name}/")), key=len, default=None
        )

    def listing(self, *, has_aliases: bool = True) -> Iterator[Listed]:
        """Return what lists show of selectors, of peers and, if the config says so, of aliases.

        Models themselves are in the roster. Names that are switched off are left out.
        """
        return (one for one in self._listing(has_aliases) if not self.is_off(one.name))

    def _listing(self, has_aliases: bool) -> Iterator[Listed]:  # noqa: FBT001 - ours alone
        if has_aliases and self._router.include_aliases_in_list:
            for model in self._roster.models:
                if not model.entry.unlisted:
                    for alias in aliases_of(model):
                        yield Listed(name=alias, kind=ALIAS, model=model.found.id)
        for name, selector in self._selectors.items():
            if not selector.unlisted:
                yield Listed(
                    name=name,
                    kind=SELECTOR,
                    title=selector.title,
                    description=selector.description,
                    metadata=selector.metadata,
                )
        if self._peers is not None:
            yield from self._of_peers(self._peers)

    def _of_peers(self, peers: PeerNames) -> Iterator[Listed]:
        shown = set()
        for known_as, peer in peers.listed():
            name = known_as
            if self._is_ours(name):
                # What is asked for by this name is ours.
                name = f"{peer}/{name}"
                if self._is_ours(name) or peers.target(name) is None:
                    continue
            if name not in shown:
                shown.add(name)
                yield Listed(name=name, kind=PEER, model=name, description=f"of {peer}")

    def _is_ours(self, name: str) -> bool:
        return name in self._selectors or name in self.catalog

    def _standing(self, name: str) -> Standing | None:
        """Return how the target of a selector is doing; None when there is no such model."""
        try:
            model = self.catalog.resolve(name)
        except (UnknownModelError, AmbiguousModelError):
            if self._peers is None or (target := self._peers.target(name)) is None:
                return None
            return self._peers.standing(target.model)
        return None if model.invalid else self._look(model.id)

    def _target(self, name: str, *, asked: str) -> Target:
        """Return where the model of this name is; ``asked`` is what the request said."""
        try:
            model = self.find(name)
        except ModelNotFoundError:
            target = self._peers.target(name) if self._peers is not None else None
            if target is None:
                raise
            return target if name == asked else _asked_otherwise(target, name, asked)
        return self._own_target(model, name, asked)

    def _own_target(self, model: CatalogModel, name: str, asked: str) -> Target:
        if model.invalid:
            raise ModelNotFoundError(
                f"model '{model.id}' is invalid: {model.invalid}", param="model"
            )
        known = self._roster[model.id]
        entry = known.entry
        notify = entry.notify_model_swap
        is_given = (
            name != asked or asked in entry.aliases or asked in entry.filters.set_params_by_id
        )
        return Target(
            model.id,
            name=asked if is_given and asked != model.id else "",
            rewrite=rewrite_of(entry, name, asked),
            timeouts=timeouts_of(entry, self._router),
            notify=None if notify == self._router.notify_model_swap else notify,
            is_open=known.spawn.proxy_endpoints is None,
        )


def aliases_of(model: RosterModel) -> Iterator[str]:
    """Return the names that the config gives a model besides its own."""
    entry = model.entry
    for name in dict.fromkeys((*entry.aliases, *entry.filters.set_params_by_id)):
        if name != model.found.id:
            yield name


def _asked_otherwise(target: Target, name: str, asked: str) -> Target:
    """Return a peer's target for requests that say ``asked``, of which the peer cannot know."""
    rewrite = target.rewrite or Rewrite()
    if rewrite.model is None:
        rewrite = msgspec.structs.replace(rewrite, model=name)
    return msgspec.structs.replace(target, name=asked, rewrite=rewrite)


def rewrite_of(entry: ModelEntry, name: str, asked: str) -> Rewrite | None:
    """Return what becomes of the body of a request that says ``asked`` and means ``name``.

    The engine is told another name only if the config says so, or if a selector or a profile has
    chosen one: of that which the client said the engine cannot know.
    """
    filters = entry.filters
    values = {**filters.set_params, **filters.set_params_by_id.get(name, {})}
    model = entry.use_model_name or (name if name != asked else None)
    if model is None and not values and not filters.strip_params:
        return None
    return make_rewrite(model=model, strip=filters.strip_params, values=values)


def timeouts_of(entry: ModelEntry, router: RouterSettings) -> Timeouts | None:
    """Return the patience that a model has of its own; None when it is the router's."""
    read_s, first_byte_s = entry.read_timeout_s, entry.first_byte_timeout_s
    if read_s == router.read_timeout_s:
        read_s = None
    if first_byte_s == router.first_byte_timeout_s:
        first_byte_s = None
    return None if read_s is None and first_byte_s is None else Timeouts(read_s, first_byte_s)
