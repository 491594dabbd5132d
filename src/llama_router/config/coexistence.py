"""Which models may run side by side, where memory is not the only thing that decides."""

from llama_router.config import fields
from llama_router.config.fields import (
    EvictCost,
    MatrixExpression,
    Name,
    SetName,
    VariableName,
    setting,
)
from llama_router.config.section import Section


class GroupEntry(Section):
    """``groups.*``: how the models that name this group get along."""

    swap: bool = setting(False, "Whether only one of its models runs at a time.")
    exclusive: bool = setting(
        True, "Whether loading one of its models unloads those of all other groups."
    )
    persistent: bool = setting(
        False, "Whether its models stay when one of an exclusive group is loaded."
    )


class MatrixSettings(Section):
    """``matrix``: which combinations of models may run, in llama-swap's words."""

    vars: dict[VariableName, Name] = setting(
        {}, "Short names of models.", max_length=fields.LIST_MAX_COUNT
    )
    evict_costs: dict[Name, EvictCost] = setting(
        {},
        "How much dearer than usual it is to unload a model, by its name or short name; 1: as"
        " usual.",
        max_length=fields.LIST_MAX_COUNT,
    )
    sets: dict[SetName, MatrixExpression] = setting(
        {},
        "Combinations by name: `a & b` run together, `a | b` one of them, `( )` groups, `+name` is"
        " another set.",
        max_length=fields.LIST_MAX_COUNT,
    )
