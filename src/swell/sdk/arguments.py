"""What does each public argument do? Every one has an effect or is refused at deploy, and tests show which."""

from __future__ import annotations

from swell.model.schedule import UNITS
from swell.sdk import call_arguments, event_arguments
from swell.sdk import shared_arguments as shared

_ONE_NODE = "there is one node, and it is where `swell up` runs"
_SECRETS = "builds are given no secrets; the installer reads what the server's own environment says of indexes"
_VOLUMES = "builds are given no volumes; read them in an @enter method"
_ITS_VOLUMES = "volumes belong to what is deployed; give volumes= to the function or class itself"
_VOLUME_VERSION = "there is one kind of volume; leave it out"
_DOMAINS = "web endpoints are reached at {label}.localhost and /web/{label}/"
_NO_BUILD_STEPS = "packages are installed as they are; there is no build step to set up"
_CACHED = "environments are cached by what is in them; change a version to get a new one"
_NO_LAYERS = "files always travel with the source, and there are no later build steps that could see them"
_CLIENT = "set SWELL_URL and SWELL_KEY to choose the server"

_RESOURCES_REFUSED: dict[str, str] = {
    "serialized": "code is imported from source, never pickled; put the function at the top level of a file",
    "network_file_systems": "network file systems are not available; use a folder of the node",
    "ephemeral_disk": "a replica uses its node's own disk, without a quota",
    "proxy": "the function reaches the network as its node does",
    "cloud": _ONE_NODE,
    "region": _ONE_NODE,
    "routing_region": _ONE_NODE,
    "nonpreemptible": "the node is never taken away, so every replica is that already; leave it out",
    "i6pn": "replicas do not talk to each other directly",
    "experimental_options": "there are none",
    "max_inputs": "use single_use_containers=True for one input per replica",
}

_BUILD_REFUSED = {"force_build": _CACHED, "env": _NO_BUILD_STEPS, "secrets": _SECRETS, "gpu": _NO_BUILD_STEPS}
_STEP = "a step takes nothing of its own; use Image.env, and secrets= of the function"
_STEP_REFUSED = {"force_build": _CACHED, "env": _STEP, "secrets": _STEP, "gpu": _STEP}
_CONTEXT = "only the text of a Dockerfile travels; files come along with add_local_*"
_PULLED = "credentials for registries are not available; the engine pulls with its own"
_BUILT_HERE = "it runs on the node that builds the environment, with all that this has"

REFUSED: dict[str, dict[str, str]] = {
    "App.function": _RESOURCES_REFUSED,
    "App.cls": _RESOURCES_REFUSED,
    "App.run": {"client": _CLIENT, "interactive": "a function has no terminal; `swell shell` opens one in what it has"},
    "App.deploy": {"client": _CLIENT},
    "Secret.from_name": {"client": _CLIENT},
    "Secret.from_dotenv": {"client": _CLIENT},
    "Volume.from_name": {"client": _CLIENT, "version": _VOLUME_VERSION, "create_options": _VOLUME_VERSION},
    "Volume.ephemeral": {"client": _CLIENT, "version": _VOLUME_VERSION},
    "Volume.delete": {"client": _CLIENT},
    "Volume.rename": {"client": _CLIENT},
    **{
        f"{kind}.{method}": {"client": _CLIENT}
        for kind in ("Dict", "Queue")
        for method in (
            *("from_name", "from_id", "ephemeral", "hydrate"),
            *("objects.create", "objects.list", "objects.delete"),
        )
    },
    "App.lookup": {"client": _CLIENT, "create_if_missing": "an app is made by deploying functions"},
    "App.stop": {"client": _CLIENT},
    "Function.from_name": {"client": _CLIENT},
    "FunctionCall.from_id": {"client": _CLIENT},
    "FunctionCall.cancel": {"terminate_containers": "its replica stays, for other calls; leave it out"},
    "Cls.from_name": {"client": _CLIENT},
    "Function.with_options": {"volumes": _ITS_VOLUMES, "region": _ONE_NODE, "cloud": _ONE_NODE},
    "Cls.with_options": {"volumes": _ITS_VOLUMES, "region": _ONE_NODE, "cloud": _ONE_NODE},
    "clustered": {"rdma": "members meet on the network that their nodes have; leave it out"},
    "fastapi_endpoint": {"custom_domains": _DOMAINS},
    "asgi_app": {"custom_domains": _DOMAINS},
    "wsgi_app": {"custom_domains": _DOMAINS},
    "web_server": {"custom_domains": _DOMAINS},
    "Image.debian_slim": {"force_build": _CACHED},
    "Image.micromamba": {"force_build": _CACHED},
    "Image.from_registry": {"secret": _PULLED, "force_build": _CACHED},
    "Image.from_aws_ecr": {"secret": _PULLED, "force_build": _CACHED},
    "Image.from_gcp_artifact_registry": {"secret": _PULLED, "force_build": _CACHED},
    "Image.from_scratch": {"force_build": _CACHED},
    "Image.from_dockerfile": {
        **_STEP_REFUSED,
        "context_dir": _CONTEXT,
        "ignore": _CONTEXT,
        "registry_secret": _PULLED,
    },
    "Image.apt_install": _STEP_REFUSED,
    "Image.run_commands": {**_STEP_REFUSED, "volumes": _VOLUMES},
    "Image.dockerfile_commands": {
        **_STEP_REFUSED,
        "context_dir": _CONTEXT,
        "context_files": _CONTEXT,
        "ignore": _CONTEXT,
    },
    "Image.micromamba_install": _STEP_REFUSED,
    "Image.run_function": {
        "volumes": _VOLUMES,
        "network_file_systems": "network file systems are not available; use a folder of the node",
        "gpu": _BUILT_HERE,
        "cpu": _BUILT_HERE,
        "memory": _BUILT_HERE,
        "cloud": _ONE_NODE,
        "region": _ONE_NODE,
        "force_build": _CACHED,
    },
    "Image.pip_install": _BUILD_REFUSED,
    "Image.pip_install_from_requirements": _BUILD_REFUSED,
    "Image.pip_install_from_pyproject": _BUILD_REFUSED,
    "Image.uv_sync": {
        **_BUILD_REFUSED,
        "extra_options": "its lock file says all but groups= and extras=",
        "uv_version": "the uv of who deploys is used",
    },
    "Image.uv_pip_install": {**_BUILD_REFUSED, "uv_version": "the server's own uv is used"},
    "Image.add_local_file": {"copy": _NO_LAYERS},
    "Image.add_local_dir": {"copy": _NO_LAYERS},
    "Image.add_local_python_source": {"copy": _NO_LAYERS},
}
"""Public callable → refused argument → why, and what to do instead."""

_RETRIED = "Revision.retrying: callers send failed calls again"
_STREAMED = "Method.generator: .remote_gen() instead of .remote(); default: what the code says"

_RESOURCES_EFFECTS: dict[str, str] = {
    "image": "Environment.packages, Environment.variables and the files in Revision.bundle; default: the app's",
    "env": "Environment.variables, over those of the image",
    "secrets": "Revision.secrets, after those of the app: the last one that has a variable counts, also over env=",
    "volumes": "Revision.volumes: a volume at each of these paths, and those of the app at others",
    "gpu": "Needs.gpu: a node must have one of these kinds",
    "cpu": "Needs.cpu in cores, and with a pair Needs.cpu_limit",
    "memory": "Needs.memory_mib, and with a pair Needs.memory_limit_mib",
    "min_containers": "Scaling.min_replicas",
    "max_containers": "Scaling.max_replicas",
    "buffer_containers": "Scaling.buffer_replicas",
    "scaledown_window": "Scaling.idle_s in seconds",
    "retries": _RETRIED,
    "timeout": "Revision.timeout_s",
    "timeout_max": "Revision.timeout_max_s: each swell.progress() gives a call its timeout anew, until it has run so "
    "long; default: it gives nothing",
    "startup_timeout": "Revision.startup_timeout_s; default 300 s",
    "enable_memory_snapshot": "Revision.snapshot: its template goes last when memory is short; and Entry.enter_snap: "
    "@enter(snap=True) hooks run once, in that template, instead of in every replica (Entry.enter). "
    "The loaded module is kept as a template either way",
    "single_use_containers": "Revision.single_use: a fresh replica for each input",
    "block_network": "Revision.isolation: a sandbox without a network",
    "restrict_modal_access": "Revision.isolation: a sandbox that has no key, and cannot call other functions",
    "include_source": "Revision.bundle: False leaves the file (or package) that defines it out",
}

_INDEX_EFFECTS = {
    "packages": "Environment.packages",
    "find_links": "Environment.index_options",
    "index_url": "Environment.index_options",
    "extra_index_url": "Environment.index_options",
    "pre": "Environment.index_options",
    "extra_options": "Environment.index_options, split like a shell's words; with --no-deps what calls need is not "
    "added to Environment.packages",
}

_WEB_EFFECTS = {
    "label": "Web.label, with -dev at its end in an app that runs for a while; default {app}--{function}, or "
    "{app}--{class}-{method}",
    "requires_proxy_auth": "Web.needs_key: callers must send the API key",
}

_SCALING_EFFECTS = {
    "min_containers": "Scaling.min_replicas until the next deploy",
    "max_containers": "Scaling.max_replicas until the next deploy",
    "buffer_containers": "Scaling.buffer_replicas until the next deploy",
    "scaledown_window": "Scaling.idle_s until the next deploy",
}

_OPTION_EFFECTS: dict[str, str] = {
    "cpu": "Options.cpu, and with a pair Options.cpu_limit",
    "memory": "Options.memory_mib, and with a pair Options.memory_limit_mib",
    "gpu": "Options.gpu",
    "env": "Options.variables, over those it was deployed with",
    "secrets": "Options.secrets, in place of those it was deployed with",
    "retries": "Options.retrying: callers send failed calls again",
    "max_containers": "Options.max_replicas: of these replicas alone",
    "buffer_containers": "Options.buffer_replicas",
    "scaledown_window": "Options.idle_s in seconds",
    "timeout": "Options.timeout_s",
    "timeout_max": "Options.timeout_max_s: each swell.progress() gives a call its timeout anew, until it has run so "
    "long",
}

_CONCURRENCY_EFFECTS = {
    "max_inputs": "Options.max_inputs and, where target_inputs is not given, that too",
    "target_inputs": "Options.target_inputs; default: max_inputs",
}

_BATCHING_EFFECTS = {
    "max_batch_size": "Batch.max_size of Options.batch: inputs of one batch, and room for two where there is less",
    "wait_ms": "Batch.wait_ms of Options.batch: how long a call may wait for others while the function could have it",
}

_MISSED = "what was missed is made up for once for all of it, each for its own (all), or not (skip)"

_LOOKUP_EFFECTS = {
    "app_name": "the app",
    "name": "its function or class",
    "environment_name": "the namespace",
    "version": "calls are for that version alone, which has the traffic or (`swell app traffic`) a share or a tag",
}

EFFECTS: dict[str, dict[str, str]] = {
    "App": {
        "name": "App.name; needed to deploy",
        "tags": "App.tags",
        "image": "default of its functions: Environment.packages, Environment.variables, the files in Revision.bundle",
        "secrets": "Revision.secrets of its functions, before their own",
        "volumes": "Revision.volumes of its functions, unless they have others at the same paths",
        "include_source": "default of its functions: what is in Revision.bundle",
    },
    "App.function": {
        **_RESOURCES_EFFECTS,
        "schedule": "Workload.schedule: the server calls it at these times, without arguments, while it is deployed",
        "trigger": "Workload.subscription: it is called with each event, of a source or of a class of the app; or "
        "Workload.schedule, as schedule= is",
        "name": "Workload.name and Method.name; default: the function's own",
        "is_generator": _STREAMED,
        "nodes": "Revision.gang and Revision.single_use: so many replicas work on each call, which goes by the queue",
        "min_nodes": "Revision.gang: so many will do where there is no room for all; default: no fewer than nodes=",
    },
    "App.cls": _RESOURCES_EFFECTS,
    "App.local_entrypoint": {"name": "its name in registered_entrypoints and for `swell run`"},
    "App.include": {
        "other_app": "its functions and classes become part of this app",
        "inherit_tags": "its tags too, where this app does not have them",
    },
    "App.run": {
        "name": "stem of the ephemeral app's name",
        "detach": "True leaves the app on the server at the end",
        "environment_name": "the namespace",
    },
    "App.deploy": {
        "name": "name to deploy under",
        "environment_name": "the namespace",
        "strategy": "'rolling': what serves goes on until its successor is ready; 'recreate': it gives way at once; "
        "'blue-green': it goes on until its successor is promoted (`swell app promote`)",
        "tag": "Version.tag: what `swell app history` shows beside this version",
    },
    "App.lookup": {"name": "the deployed app", "environment_name": "the namespace"},
    **call_arguments.EFFECTS,
    "Function.update_autoscaler": _SCALING_EFFECTS,
    "Cls.update_autoscaler": _SCALING_EFFECTS,
    "Function.with_options": _OPTION_EFFECTS,
    "Function.with_concurrency": _CONCURRENCY_EFFECTS,
    "Function.with_batching": _BATCHING_EFFECTS,
    "Cls.with_options": _OPTION_EFFECTS,
    "Cls.with_concurrency": _CONCURRENCY_EFFECTS,
    "Cls.with_batching": _BATCHING_EFFECTS,
    "Function.from_name": _LOOKUP_EFFECTS,
    "Cls.from_name": _LOOKUP_EFFECTS,
    "method": {"is_generator": _STREAMED},
    "parameter": {
        "default": "Parameter.default: the value where none is given; without one, it has to be",
        "init": "False: it is no parameter (Entry.parameters), but an attribute that a hook sets",
    },
    "enter": {"snap": "Entry.enter_snap instead of Entry.enter (with enable_memory_snapshot)"},
    "concurrent": {
        "max_inputs": "Revision.max_inputs and, where target_inputs is not given, Revision.target_inputs",
        "target_inputs": "Revision.target_inputs; default: max_inputs",
    },
    "clustered": {"size": "Gang.size of Revision.gang, and Revision.single_use, as nodes= of @app.function"},
    "limit": {
        "rate": "Limits.rate_per_s: requests over it are refused with 429",
        "burst": "Limits.burst: requests that may come at once; default: one second of the rate",
        "concurrency": "Limits.concurrency: requests at a time, those that wait included; over it 429",
        "body_max": "Limits.body_max in bytes; over it 413",
    },
    "batched": {
        "max_batch_size": "Batch.max_size; and Revision.target_inputs, and room for twice as many in "
        "Revision.max_inputs, where @concurrent does not say otherwise",
        "wait_ms": "Batch.wait_ms: how long a call may wait for others while the function could have it",
    },
    "cached": {
        "ttl_s": "Caching.ttl_s: for so long an answer is given to whoever calls with the same",
        "vary": "Caching.vary: headers of a request on which its answer depends, beside its body",
    },
    "progress": {
        "done": "how much is done, as `swell calls show` tells it",
        "total": "what that is to come to",
        "message": "what is done now: 200 characters of it are kept",
    },
    "transform": {
        "before": "is given what a caller sends, and returns the function's argument; Method.tensors: none",
        "after": "is given what the function returned, and returns the answer",
    },
    "fastapi_endpoint": {**_WEB_EFFECTS, "method": "Web.http_method", "docs": "Web.docs"},
    "asgi_app": _WEB_EFFECTS,
    "wsgi_app": _WEB_EFFECTS,
    "web_server": {
        **_WEB_EFFECTS,
        "port": "Web.port and Needs.ports",
        "startup_timeout": "Web.startup_timeout_s",
    },
    "openai": {
        "api": "Method.openai: the part of the OpenAI API that it answers",
        "model": "Method.openai: the name that clients say, with -dev at its end in an app that runs for a while",
    },
    "tensors": {
        "inputs": "Method.tensors: name of an argument → (datatype, shape), -1 for any length",
        "outputs": "Method.tensors: name → (datatype, shape); default: what the return annotation says",
    },
    "isolated": {
        "network": "Isolation.network: none, or that of the node",
        "readable": "Isolation.readable: folders of the node that it sees",
        "writable": "Isolation.writable: folders of the node that it may write to",
        "optional": "Isolation.optional: layers it does without where the node lacks them",
    },
    "Cron": {
        "cron_string": "Cron.line of Workload.schedule",
        "timezone": "Cron.timezone of Workload.schedule: whose local time that is",
        "missed": f"Cron.missed of Workload.schedule: {_MISSED}",
    },
    "Period": {
        **{name: f"Period.{name} of Workload.schedule" for name in UNITS},
        "missed": f"Period.missed of Workload.schedule: {_MISSED}",
    },
    **event_arguments.EFFECTS,
    "Retries": {
        "max_retries": _RETRIED,
        "backoff_coefficient": _RETRIED,
        "initial_delay": _RETRIED,
        "max_delay": _RETRIED,
    },
    "Secret.from_name": {
        "name": "SecretUse.name in Revision.secrets",
        "environment_name": "SecretUse.namespace; default: that of the app",
        "required_keys": "SecretUse.required: a deploy without them is refused",
    },
    "Secret.from_dict": {"env_dict": "values kept for the app; None leaves one out"},
    "Secret.from_local_environ": {"env_keys": "variables of the program that deploys, kept for the app"},
    "Secret.from_dotenv": {
        "path": "folder (or file in it) from which the file is looked for upwards; default: the working directory",
        "filename": "the file's name",
    },
    "Volume.from_name": {
        "name": "VolumeUse.name in Revision.volumes",
        "environment_name": "VolumeUse.namespace; default: that of the app",
        "create_if_missing": "it is made when it is first used, a deploy included",
    },
    "Volume.ephemeral": {"environment_name": "the namespace"},
    "Volume.with_mount_options": {
        "read_only": "VolumeUse.read_only: it cannot be written to",
        "sub_path": "VolumeUse.sub_path: only this folder of it",
    },
    "Volume.listdir": {"path": "the folder", "recursive": "with all below it"},
    "Volume.iterdir": {"path": "the folder", "recursive": "False: only what is right in it"},
    "Volume.read_file": {"path": "the file"},
    "Volume.read_file_into_fileobj": {"path": "the file", "fileobj": "what it is written to"},
    "Volume.remove_file": {"path": "the file", "recursive": "a folder with all below it"},
    "Volume.copy_files": {
        "src_paths": "what is copied",
        "dst_path": "the folder that it is copied into, or the name of the copy",
        "recursive": "folders, too",
    },
    "Volume.batch_upload": {"force": "files that are there are written over"},
    "Volume.delete": {
        "name": "the volume",
        "allow_missing": "one that is not there is no error",
        "environment_name": "the namespace",
    },
    "Volume.rename": {"old_name": "the volume", "new_name": "its new name", "environment_name": "the namespace"},
    **{f"{kind}.{method}": effects for kind in ("Dict", "Queue") for method, effects in shared.COMMON.items()},
    "Dict.get": {"key": shared.KEY, "default": "returned where there is no such key"},
    "Dict.contains": {"key": shared.KEY},
    "Dict.put": {
        "key": shared.KEY,
        "value": "what it has from now on",
        "skip_if_exists": "a value that is there stays",
    },
    "Dict.pop": {"key": shared.KEY, "default": "returned where there is no such key, in place of a KeyError"},
    "Dict.update": {"other": "keys and their values", "kwargs": "keys that are names, and their values"},
    "Queue.put": {"v": "the item", **shared.PUT},
    "Queue.put_many": {"vs": "the items", **shared.PUT},
    "Queue.get": shared.GET,
    "Queue.get_many": {"n_values": "so many at most", **shared.GET},
    "Queue.iterate": {
        "partition": shared.PARTITION,
        "item_poll_timeout": "so long it waits for one more, after the last",
    },
    "Queue.len": {"partition": shared.PARTITION, "total": "the items of all partitions"},
    "Queue.clear": {"partition": shared.PARTITION, "all": "every partition"},
    "Image.debian_slim": {
        "python_version": "Environment.python, and what calls need there in Environment.packages; "
        "default: the deploying interpreter's"
    },
    "Image.pip_install": _INDEX_EFFECTS,
    "Image.uv_pip_install": {**_INDEX_EFFECTS, "requirements": "lines of these files, in Environment.packages"},
    "Image.pip_install_from_requirements": {
        **{name: does for name, does in _INDEX_EFFECTS.items() if name != "packages"},
        "requirements_txt": "lines of this file, in Environment.packages",
    },
    "Image.pip_install_from_pyproject": {
        **{name: does for name, does in _INDEX_EFFECTS.items() if name != "packages"},
        "pyproject_toml": "its dependencies, in Environment.packages",
        "optional_dependencies": "those of these groups, too",
    },
    "Image.uv_sync": {
        "uv_project_dir": "folder of the uv.lock; what that pins, without the project itself, in Environment.packages",
        "groups": "dependency groups to add",
        "extras": "optional dependencies to add",
        "frozen": "False looks first whether the lock file fits the pyproject.toml, and refuses when it does not",
    },
    "Image.run_function": {
        "raw_f": "BuildCall.qualname: run when the environment is built; its code, and what of its module that refers "
        "to (BuildCall.content), are part of the environment's name",
        "args": "given to it, as BuildCall.arguments",
        "kwargs": "given to it, as BuildCall.arguments",
        "env": "BuildCall.variables, over those that the image had before",
        "secrets": "BuildCall.secrets; their values are no part of the environment's name",
        "timeout": "BuildCall.timeout_s; a function that takes longer fails the deploy",
        "include_source": "Revision.bundle: False leaves the file that defines it out",
    },
    **{
        f"Image.{base}": {
            "tag": "ContainerStep.words",
            "setup_dockerfile_commands": "ContainerStep.options",
            "add_python": "ContainerStep.options",
        }
        for base in ("from_registry", "from_aws_ecr", "from_gcp_artifact_registry")
    },
    "Image.micromamba": {"python_version": "ContainerStep.words"},
    "Image.from_dockerfile": {
        "path": "ContainerStep.words, and the file's text in ContainerStep.options",
        "build_args": "ContainerStep.options",
        "add_python": "ContainerStep.options",
    },
    "Image.apt_install": {"packages": "ContainerStep.words"},
    "Image.run_commands": {"commands": "ContainerStep.words"},
    "Image.dockerfile_commands": {
        "dockerfile_commands": "ContainerStep.words",
        "build_args": "ContainerStep.options",
    },
    "Image.micromamba_install": {
        "packages": "ContainerStep.words",
        "channels": "ContainerStep.options",
        "spec_file": "the file's text in ContainerStep.options",
    },
    "Image.entrypoint": {"entrypoint_commands": "ContainerStep.words"},
    "Image.shell": {"shell_commands": "ContainerStep.words"},
    "Image.cmd": {"cmd": "ContainerStep.words"},
    "Image.env": {"vars": "Environment.variables"},
    "Image.workdir": {"path": "Environment.workdir"},
    "Image.add_local_file": {"local_path": "a file in the bundle", "remote_path": "its place there"},
    "Image.add_local_dir": {
        "local_path": "a folder in the bundle",
        "remote_path": "its place there",
        "ignore": "leaves files out",
    },
    "Image.add_local_python_source": {"modules": "in the bundle, by their import names", "ignore": "leaves files out"},
    "Image.pipe": {
        "func": "called with the image",
        "args": "given to func",
        "kwargs": "given to func",
    },
}
"""Public callable → argument → what it changes. Fields of what is deployed are named as `Type.field`."""
