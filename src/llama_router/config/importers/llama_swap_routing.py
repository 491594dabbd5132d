"""What stands around the models of a llama-swap config: groups, matrix, names, peers, hooks."""

from collections.abc import Mapping
from typing import Any

from llama_router.config.fields import PRIORITY_LIMIT
from llama_router.config.importers.llama_swap_commands import native_text
from llama_router.config.importers.llama_swap_models import Models, native_filters, native_json
from llama_router.config.importers.report import Fate
from llama_router.config.importers.source import Native, Source
from llama_router.config.problems import Keys

# Where models without a group are, in which one runs at a time.
DEFAULT_GROUP = "(default)"
# What llama-swap waits for a peer's answer.
PEER_RESPONSE_HEADER_S = 60
_LONGEST_S = 7 * 24 * 3600
_TAILCAT_SCHEME = "tailcat://"
_ROUTER: Keys = ("routing", "router")


def put_routing(native: Native, good: Mapping[str, Any], source: Source, models: Models) -> None:
    """Translate all of it; faults are told to the source."""
    _Routing(native, good, source, models).put()


class _Routing:
    def __init__(
        self, native: Native, good: Mapping[str, Any], source: Source, models: Models
    ) -> None:
        self._native = native
        self._good = good
        self._source = source
        self._models = models

    def put(self) -> None:
        self._put_coexistence()
        self._put_priorities()
        self._put_selectors()
        self._put_profiles()
        self._put_peers()
        self._put_hooks()

    def _put_coexistence(self) -> None:
        """Take groups or the matrix, from the present place or the early one, but not both."""
        router = self._good.get("routing", {}).get("router", {})
        settings = router.get("settings", {})
        early = [name for name in ("groups", "matrix") if self._good.get(name)]
        if early and (
            router.get("use") or any(settings.get(name) for name in ("groups", "matrix"))
        ):
            self._source.fault((early[0],), "stands beside routing.router; move it there")
            return
        if len(early) > 1:
            self._source.fault(("matrix",), "cannot stand beside groups")
            return
        place: Keys = () if early else (*_ROUTER, "settings")
        found = self._good if early else settings
        use = early[0] if early else router.get("use", "group")
        if use not in {"group", "groups", "matrix"}:
            self._source.fault((*_ROUTER, "use"), "must be group or matrix")
        elif use == "matrix":
            self._left_out(settings, "groups", early)
            self._put_matrix(found.get("matrix"), (*place, "matrix"))
        else:
            self._left_out(settings, "matrix", early)
            self._put_groups(found.get("groups", {}), (*place, "groups"))

    def _left_out(self, settings: Mapping[str, Any], name: str, early: list[str]) -> None:
        if not early and settings.get(name):
            why = "routing.router.use says that it is not in use"
            self._source.note((*_ROUTER, "settings", name), Fate.NOT_CARRIED, "", "", why)

    def _put_groups(self, groups: Mapping[str, Any], place: Keys) -> None:
        group_of: dict[str, str] = {}
        for name, group in groups.items():
            self._native.put(
                ("groups", name),
                {
                    "swap": group.get("swap", True),
                    "exclusive": group.get("exclusive", True),
                    "persistent": group.get("persistent", False),
                },
                (*place, name),
            )
            for index, member in enumerate(group.get("members", ())):
                at = (*place, name, "members", index)
                if member in group_of:
                    self._source.fault(at, f"{member} is a member of {group_of[member]} already")
                elif member not in list(self._models):
                    self._source.note(at, Fate.NOT_CARRIED, why=f"there is no model {member}")
                else:
                    group_of[member] = name
                    self._models.set(member, "group", name, at)
        rest = [model_id for model_id in self._models if model_id not in group_of]
        if rest:
            one_of_them = {"swap": True, "exclusive": True, "persistent": False}
            self._native.put(("groups", DEFAULT_GROUP), one_of_them, ("models",))
        for model_id in rest:
            self._models.set(model_id, "group", DEFAULT_GROUP, ("models", model_id))

    def _put_matrix(self, matrix: Mapping[str, Any] | None, place: Keys) -> None:
        if not matrix or not matrix.get("sets"):
            self._source.fault(place if matrix else _ROUTER, "the matrix needs sets")
            return
        for part in ("vars", "evict_costs", "sets"):
            self._native.put(("matrix", part), {}, (*place, part))
            for name, value in matrix.get(part, {}).items():
                self._native.put(("matrix", part, name), value, (*place, part, name))

    def _put_priorities(self) -> None:
        fifo = (
            self._good.get("routing", {}).get("scheduler", {}).get("settings", {}).get("fifo", {})
        )
        place: Keys = ("routing", "scheduler", "settings", "fifo", "priority")
        scheduler = self._good.get("routing", {}).get("scheduler", {}).get("use", "fifo")
        if scheduler != "fifo":
            self._source.fault(("routing", "scheduler", "use"), "must be fifo, the only one")
        for name, priority in fifo.get("priority", {}).items():
            model_id = self._models.id_of(name)
            if model_id is None:
                self._source.fault((*place, name), f"there is no model {name}")
                continue
            within = max(-PRIORITY_LIMIT, min(PRIORITY_LIMIT, priority))
            if within != priority:
                why = f"{within} is as far as priorities go"
                self._source.note((*place, name), Fate.TRANSLATED, "", "models[].priority", why)
            self._models.set(model_id, "priority", within, (*place, name))

    def _put_selectors(self) -> None:
        for name, selector in self._good.get("selectors", {}).items():
            place: Keys = ("selectors", name)
            entry: dict[str, Any] = {"strategy": selector.get("strategy", "")}
            if not entry["strategy"]:
                self._source.fault(place, "strategy is missing")
                continue
            entry["targets"] = list(selector.get("targets", ()))
            if "spillover" in selector.get("settings", {}):
                entry["spillover"] = selector["settings"]["spillover"]
            for theirs, ours in (("name", "title"), ("description", "description")):
                if selector.get(theirs):
                    entry[ours] = native_text(selector[theirs])
            if "unlisted" in selector:
                entry["unlisted"] = selector["unlisted"]
            if selector.get("metadata"):
                entry["metadata"] = native_json(selector["metadata"])
            self._put_entry("selectors", name, entry, place)

    def _put_profiles(self) -> None:
        for name, profile in self._good.get("profiles", {}).items():
            entry: dict[str, Any] = {}
            if profile.get("description"):
                entry["description"] = native_text(profile["description"])
            entry["pins"] = dict(profile.get("pins", {}))
            if not entry["pins"]:
                self._source.fault(("profiles", name), "pins are missing")
            self._put_entry("profiles", name, entry, ("profiles", name))

    def _put_peers(self) -> None:
        for name, peer in self._good.get("peers", {}).items():
            place: Keys = ("peers", name)
            if not peer.get("proxy"):
                self._source.fault(place, "proxy is missing")
            elif peer["proxy"].lower().startswith(_TAILCAT_SCHEME):
                why = "the router speaks HTTP over TCP, not Tailcat, so this peer is left out"
                self._source.note((*place, "proxy"), Fate.NOT_CARRIED, why=why)
                continue
            if not peer.get("models"):
                self._source.fault(place, "models are missing")
            entry: dict[str, Any] = {
                "url": native_text(peer.get("proxy", "")),
                "models": list(dict.fromkeys(peer.get("models", ()))),
            }
            if peer.get("apiKey"):
                entry["api_key"] = native_text(peer["apiKey"])
            filters = native_filters(peer.get("filters", {}))
            if filters:
                entry["filters"] = filters
            timeouts = peer.get("timeouts", {})
            if "connect" in timeouts:
                entry["connection_timeout_s"] = timeouts["connect"] or _LONGEST_S
            wait_s = timeouts.get("responseHeader", PEER_RESPONSE_HEADER_S)
            entry["first_byte_timeout_s"] = wait_s
            theirs = {"url": "proxy", "api_key": "apiKey"}
            self._put_entry("peers", name, entry, place, theirs)

    def _put_entry(
        self,
        section: str,
        name: str,
        entry: Mapping[str, Any],
        place: Keys,
        theirs: Mapping[str, str] | None = None,
    ) -> None:
        """Put a named entry in, each of its settings with the key that it comes from."""
        self._native.put((section, name), {}, place)
        for setting, value in entry.items():
            key = (theirs or {}).get(setting, setting)
            self._native.put((section, name, setting), value, (*place, key))

    def _put_hooks(self) -> None:
        start = self._good.get("hooks", {}).get("on_startup", {})
        place: Keys = ("hooks", "on_startup")
        wanted = []
        for index, name in enumerate(start.get("preload", ())):
            model_id = self._models.id_of(name.strip())
            if model_id is not None:
                wanted.append(model_id)
            elif name.strip():
                why = f"there is no model {name.strip()}, so llama-swap passes over it too"
                self._source.note((*place, "preload", index), Fate.NOT_CARRIED, why=why)
        if wanted:
            preload = list(dict.fromkeys(wanted))
            self._native.put(("router", "preload"), preload, (*place, "preload"))
        if start.get("profile"):
            if start["profile"] not in self._good.get("profiles", {}):
                self._source.fault((*place, "profile"), f"there is no profile {start['profile']}")
            self._native.put(("startup_profile",), start["profile"], (*place, "profile"))
