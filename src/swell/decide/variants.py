"""What is an app once some of its workloads are also wanted with other parameters and options?

A variant is a workload of its own beside the one it is of: made of that one, and of its revisions, by the functions
here, whenever either changes. So everything that is true of workloads (pools, scaling, rolling, splits) is true of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.resources import Needs
from swell.model.variant import is_variant, missing
from swell.model.workload import App, Entry, Options, Revision, Scaling, Split, Variant, Workload, only_wanted


class Known(msgspec.Struct, frozen=True):
    """A variant that there is, and how it is used."""

    key: str
    used_at: float
    """When it was last wanted (seconds since the epoch)."""
    idle: bool
    """Nobody wants it now, and no replica of it is on its way."""
    zero: bool
    """Nothing of it runs."""
    by: str = ""
    """The API key that asked for it first; empty where none did, or that is not known any more."""


# -- what a variant is ---------------------------------------------------------------------------


def problems(variant: Variant, workload: Workload, revision: Revision) -> list[str]:
    """Why this revision cannot be run so; empty where it can."""
    found = [*_parameter_problems(variant, revision.entry), *_batch_problems(variant.options, revision)]
    scaling = _scaling(workload.scaling, variant.options)
    if scaling.max_replicas < 1:
        found.append(f"max_containers={scaling.max_replicas} leaves nobody to answer")
    if revision.gang is not None and (variant.options.max_inputs or variant.options.buffer_replicas):
        found.append(
            "several replicas work on each call of it (nodes=), so each takes one input, and none is kept ready"
        )
    if variant.options.target_inputs is not None and variant.options.max_inputs is None:
        found.append("target_inputs= goes with max_inputs=: give both")
    made = derived(revision, variant)
    if made.target_inputs > made.max_inputs:
        found.append(f"target_inputs={made.target_inputs} is above max_inputs={made.max_inputs}")
    return [*found, *_time_problems(variant.options, made)]


def _parameter_problems(variant: Variant, entry: Entry) -> list[str]:
    kinds = {parameter.name: parameter.kind for parameter in entry.parameters}
    found = []
    for value in variant.parameters:
        if value.name not in kinds:
            found.append(f"there is no parameter {value.name}")
        elif kinds[value.name] != value.kind:
            found.append(f"{value.name} is of type {kinds[value.name]}, not {value.kind}")
    lacking = missing(entry.parameters, variant.parameters)
    return [*found, f"it needs {lacking}"] if lacking else found


def _batch_problems(options: Options, revision: Revision) -> list[str]:
    methods, batch = revision.entry.methods, options.batch
    if batch is None:
        if (
            revision.batch is not None
            and options.max_inputs is not None
            and options.max_inputs < revision.batch.max_inputs
        ):
            return [_no_room(options.max_inputs, revision.batch.max_inputs)]
        return []
    if len(methods) != 1:
        return ["with_batching() is for what has one method: its batches would run beside the others"]
    method = methods[0]
    if method.generator or method.web is not None:
        return [f"{method.name} cannot be batched: that is for what is called with one value, and returns one"]
    if revision.batch is None and (method.tensors is not None or method.openai is not None):
        return [f"{method.name} is a model, and is batched where it is written so: put @swell.batched(…) on it"]
    if revision.single_use:
        return ["with_batching() gives a replica several inputs, and single_use_containers=True one"]
    if options.max_inputs is not None and options.max_inputs < batch.max_inputs:
        return [_no_room(options.max_inputs, batch.max_inputs)]
    return []


def _time_problems(options: Options, made: Revision) -> list[str]:
    if options.timeout_max_s and any(method.web is not None for method in made.entry.methods):
        return ["timeout_max= is for what tells of progress, which a web endpoint does not"]
    if 0 < made.timeout_max_s < made.timeout_s:
        below = f"timeout_max={made.timeout_max_s:g} is below timeout={made.timeout_s:g}"
        return [f"{below}, which a call has without any progress"]
    return []


def _no_room(max_inputs: int, least: int) -> str:
    return f"max_inputs={max_inputs} leaves no room for a batch that runs and one that fills: give at least {least}"


def derived(revision: Revision, variant: Variant) -> Revision:
    """The revision with this variant's parameters and options. Its id is another one, as its content is."""
    options = variant.options
    changes: dict[str, object] = {"parameters": variant.parameters, "needs": _needs(revision.needs, options)}
    if options.variables:
        changes["environment"] = _environment(revision.environment, options)
    for name in ("secrets", "retrying", "timeout_s", "timeout_max_s"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    return msgspec.structs.replace(revision, **changes, **_inputs(revision, options))


def _needs(needs: Needs, options: Options) -> Needs:
    if options.cpu is not None:
        needs = msgspec.structs.replace(needs, cpu=options.cpu, cpu_limit=options.cpu_limit)
    if options.memory_mib is not None:
        needs = msgspec.structs.replace(needs, memory_mib=options.memory_mib, memory_limit_mib=options.memory_limit_mib)
    return needs if options.gpu is None else msgspec.structs.replace(needs, gpu=options.gpu)


def _environment(environment: Environment, options: Options) -> Environment:
    variables = {**dict(environment.variables), **dict(options.variables)}
    return msgspec.structs.replace(environment, variables=tuple(sorted(variables.items())))


def _inputs(revision: Revision, options: Options) -> dict[str, object]:
    """How many inputs at a time, and how they are batched. A batch of another size needs room of its own, but where the
    author, or the option, gave more than that."""
    changes: dict[str, object] = {}
    most, target, batch, before = revision.max_inputs, revision.target_inputs, options.batch, revision.batch
    if batch is not None:
        method = msgspec.structs.replace(revision.entry.methods[0], batch=batch)
        changes["entry"] = msgspec.structs.replace(revision.entry, methods=(method, *revision.entry.methods[1:]))
        asked = before is not None and most != before.max_inputs
        most = max(most, batch.max_inputs) if asked else batch.max_inputs
        target = min(target, most) if asked else batch.max_size
    if options.max_inputs is not None:
        most = options.max_inputs
        target = options.target_inputs or most
    return {**changes, "max_inputs": most, "target_inputs": target}


def _scaling(scaling: Scaling, options: Options) -> Scaling:
    """A minimum is of what was written alone: of each variant that anybody asks for it would never come to an end."""
    most = scaling.max_replicas if options.max_replicas is None else options.max_replicas
    buffer = scaling.buffer_replicas if options.buffer_replicas is None else options.buffer_replicas
    idle_s = scaling.idle_s if options.idle_s is None else options.idle_s
    return Scaling(0, most, buffer, idle_s)


# -- an app with its variants --------------------------------------------------------------------


def variants(app: App) -> list[tuple[str, Variant]]:
    """Those there are, each with the name of its workload."""
    return [(workload.base, workload.variant) for workload in app.workloads if is_variant(workload.name)]


def bare(app: App) -> App:
    """The app as it was deployed; itself where it has no variants."""
    if not any(is_variant(workload.name) for workload in (*app.workloads, *app.previous)):
        return app
    kept, before = ([w for w in each if not is_variant(w.name)] for each in (app.workloads, app.previous))
    return only_wanted(msgspec.structs.replace(app, workloads=tuple(kept), previous=tuple(before)))


def varied(app: App, wanted: Iterable[tuple[str, Variant]]) -> App:
    """The bare app with those of the wanted variants that it can have; itself where there are none. One that its
    workload cannot have any more (a parameter is gone) is forgotten: whoever asks for it is told why."""
    workloads = {workload.name: workload for workload in app.workloads}
    revisions = {revision.id: revision for revision in app.revisions}
    made = [varied_workload(workloads[name], variant, revisions) for name, variant in wanted if name in workloads]
    added = [each for each in made if each is not None]
    if not added:
        return app
    more = {revision.id: revision for _, own in added for revision in own}
    return msgspec.structs.replace(
        app,
        workloads=(*app.workloads, *(workload for workload, _ in added)),
        revisions=(*app.revisions, *(revision for id, revision in more.items() if id not in revisions)),
    )


def varied_workload(
    workload: Workload, variant: Variant, revisions: Mapping[str, Revision]
) -> tuple[Workload, tuple[Revision, ...]] | None:
    """A variant of a workload and of each of its revisions that can be run so; None where the main one cannot."""
    able = {
        id: derived(revisions[id], variant) for id in workload.wants if not problems(variant, workload, revisions[id])
    }
    if workload.revision not in able:
        return None
    splits = (split for split in workload.splits if split.revision in able)
    return (
        msgspec.structs.replace(
            workload,
            name=workload.name + variant.name,
            revision=able[workload.revision].id,
            scaling=_scaling(workload.scaling, variant.options),
            splits=tuple(_split(split, able[split.revision]) for split in splits),
            variant=variant,
            schedule=None,
            subscription=None,
        ),
        tuple(able.values()),
    )


def _split(split: Split, revision: Revision) -> Split:
    return msgspec.structs.replace(split, revision=revision.id)


# -- how many there are --------------------------------------------------------------------------


def forgotten(known: Iterable[Known], keep_s: float, now: float) -> list[str]:
    """Keys of variants that have been at zero, unused, for longer than they are kept."""
    return [each.key for each in known if each.zero and each.used_at + keep_s <= now]


def given_up(known: Sequence[Known], most: int, what: str, by: str = "") -> list[Known]:
    """Those of a workload (`what`) that give their place to one more, the longest unused first; SwellError
    too_many_variants where too few can, or where those that an API key (`by`) asked for are in use on half of all."""
    own, half = sum(each.by == by and not each.idle for each in known), (most + 1) // 2
    if by and own >= half:
        raise SwellError(
            "too_many_variants",
            f"{what} is in use with {own} sets of parameters and options that this key asked for, and {half} is the "
            "most of one key, half of variants_max. Try again when some are done, or give what differs as an argument "
            "of the method.",
            status=429,
        )
    idle = sorted((each for each in known if each.idle), key=lambda each: each.used_at)
    excess = len(known) + 1 - most
    if excess > len(idle):
        raise SwellError(
            "too_many_variants",
            f"{what} is in use with {len(known)} sets of parameters and options at the same time, and {most} is the "
            "most (variants_max). Try again when some are done, or give what differs as an argument of the method.",
            status=429,
        )
    return idle[: max(excess, 0)]
