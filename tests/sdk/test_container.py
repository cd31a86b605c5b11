"""Does what only a container can hold travel with what is deployed, word by word?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import swell
from sdk import deployable
from swell.decide.powers import WAYS
from swell.model.environment import ContainerStep
from swell.sdk import describe, run

Use = Callable[..., swell.Image]


def steps(image: swell.Image) -> tuple[ContainerStep, ...]:
    """Of what is deployed with this image."""
    app = swell.App("a", image=image)
    app.function()(deployable.plain)
    (revision,) = run.prepare(app, describe.Place("a", "default", {})).app.revisions
    return revision.environment.container_steps


def slim() -> swell.Image:
    return swell.Image.debian_slim()


EXPECTED: list[tuple[str, tuple[str, ...], Use, ContainerStep]] = [
    (
        "Image.apt_install",
        ("packages",),
        lambda: slim().apt_install("ffmpeg", ["libsndfile1"]),
        ContainerStep("apt_install", ("ffmpeg", "libsndfile1")),
    ),
    (
        "Image.run_commands",
        ("commands",),
        lambda: slim().run_commands("make", ["make install"]),
        ContainerStep("run_commands", ("make", "make install")),
    ),
    (
        "Image.dockerfile_commands",
        ("dockerfile_commands", "build_args"),
        lambda: slim().dockerfile_commands(["RUN true", "USER nobody"], build_args={"A": "1"}),
        ContainerStep("dockerfile_commands", ("RUN true", "USER nobody"), (("build_args", "A=1"),)),
    ),
    (
        "Image.micromamba_install",
        ("packages", "channels"),
        lambda: slim().micromamba_install("cudatoolkit", channels=["conda-forge"]),
        ContainerStep("micromamba_install", ("cudatoolkit",), (("channels", "conda-forge"),)),
    ),
    (
        "Image.micromamba",
        ("python_version",),
        lambda: swell.Image.micromamba("3.12"),
        ContainerStep("micromamba", ("3.12",)),
    ),
    *(
        (
            f"Image.{base}",
            ("tag", "setup_dockerfile_commands", "add_python"),
            lambda base=base: getattr(swell.Image, base)(
                "repo/image:1", setup_dockerfile_commands=["RUN a", "RUN b"], add_python="3.12"
            ),
            ContainerStep(
                base,
                ("repo/image:1",),
                (
                    ("add_python", "3.12"),
                    ("setup_dockerfile_commands", "RUN a"),
                    ("setup_dockerfile_commands", "RUN b"),
                ),
            ),
        )
        for base in ("from_registry", "from_aws_ecr", "from_gcp_artifact_registry")
    ),
    (
        "Image.entrypoint",
        ("entrypoint_commands",),
        lambda: slim().entrypoint(["/a", "b"]),
        ContainerStep("entrypoint", ("/a", "b")),
    ),
    (
        "Image.shell",
        ("shell_commands",),
        lambda: slim().shell(["/bin/bash", "-c"]),
        ContainerStep("shell", ("/bin/bash", "-c")),
    ),
    ("Image.cmd", ("cmd",), lambda: slim().cmd(["serve"]), ContainerStep("cmd", ("serve",))),
]


@pytest.mark.parametrize(
    ("use", "step"),
    [pytest.param(use, step, marks=pytest.mark.shows(name, *shown), id=name) for name, shown, use, step in EXPECTED],
)
def test_a_step_is_what_was_written(use: Use, step: ContainerStep) -> None:
    assert steps(use()) == (step,)


@pytest.mark.shows("Image.from_dockerfile", "path", "build_args", "add_python")
@pytest.mark.shows("Image.micromamba_install", "spec_file")
def test_files_are_read_at_deploy_and_keep_their_place(tmp_path: Path) -> None:
    dockerfile, spec = tmp_path / "Dockerfile", tmp_path / "spec.yml"
    image = (
        swell.Image.from_dockerfile(str(dockerfile), build_args={"B": "2", "A": "1"}, add_python="3.12")
        .apt_install("git")
        .micromamba_install(spec_file=str(spec))
        .run_commands("true")
    )
    with pytest.raises(swell.exception.NotFoundError, match=r"Dockerfile .* cannot be read") as raised:
        steps(image)
    assert f'File "{__file__}"' in raised.value.detail
    dockerfile.write_text("FROM debian\nRUN true\n")
    spec.write_text("dependencies: [x]\n")
    options = (
        ("dockerfile", "FROM debian\nRUN true\n"),
        ("add_python", "3.12"),
        ("build_args", "A=1"),
        ("build_args", "B=2"),
    )
    assert steps(image) == (
        ContainerStep("from_dockerfile", (str(dockerfile),), options),
        ContainerStep("apt_install", ("git",)),
        ContainerStep("micromamba_install", (), (("spec_file", "dependencies: [x]\n"),)),
        ContainerStep("run_commands", ("true",)),
    )


def test_each_has_a_way_to_do_without() -> None:
    named = {name.partition(".")[2] for name, *_ in EXPECTED} | {"from_dockerfile", "from_scratch"}
    assert named == set(WAYS)
    assert steps(swell.Image.from_scratch()) == (ContainerStep("from_scratch"),)


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: slim().pip_install(3), r"Image\.pip_install\(3\): a package is written like 'numpy'"),
        (lambda: slim().pip_install(["numpy", 3]), r"Image\.pip_install\(3\): a package is written"),
        (lambda: slim().uv_pip_install(None), r"Image\.uv_pip_install\(None\): a package is written"),
        (lambda: slim().pip_install("--pre"), r"Image\.pip_install\('--pre'\): a package is written"),
        (lambda: slim().uv_pip_install(requirements="r.txt"), r"uv_pip_install\('r.txt'\): give a list of paths"),
        (lambda: slim().uv_pip_install(requirements=[3]), r"uv_pip_install\(3\): give the path as text"),
        (lambda: slim().pip_install_from_requirements(3), r"pip_install_from_requirements\(3\): give the path"),
        (lambda: slim().env(3), r"Image\.env: give names and values, like \{'NAME': 'value'\}, not 3"),
        (lambda: slim().env({"A": 3}), r"Image\.env: 'A' and its value must be text"),
        (lambda: slim().workdir(3), r"workdir\('3'\): give an absolute path"),
        (lambda: slim().add_local_file(3, "x"), r"Image\.add_local_file\(3\): give the path as text"),
        (lambda: slim().add_local_dir("x", 3), r"Image\.add_local_dir\(…, 3\): give the path as text"),
        (lambda: slim().add_local_python_source(3), r"add_local_python_source\(3\): name a module"),
        (lambda: slim().apt_install(), r"Image\.apt_install\(\): name at least one"),
        (lambda: slim().apt_install(3), r"Image\.apt_install\(3\): a package is written like 'ffmpeg'"),
        (lambda: slim().run_commands(["a", None]), r"Image\.run_commands\(None\): a command is text"),
        (lambda: slim().cmd("serve"), r"Image\.cmd\('serve'\): give the command's words in a list"),
        (lambda: swell.Image.from_registry(3), r"Image\.from_registry\(3\): name it in text"),
        (lambda: swell.Image.from_dockerfile(3), r"Image\.from_dockerfile\(3\): give the path as text"),
        (lambda: swell.Image.from_dockerfile("x", build_args=[1]), r"build_args=…\): give names and values"),
    ],
)
def test_what_does_not_fit_is_said_where_it_is_written(use: Use, says: str) -> None:
    with pytest.raises(swell.Error, match=says) as raised:
        use()
    assert raised.value.code == "bad_argument"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Image.from_dockerfile", {"context_dir": "."}),
        ("Image.from_registry", {"secret": "x"}),
        ("Image.apt_install", {"env": {"A": "1"}}),
    ],
)
def test_arguments_that_nothing_can_honour_are_refused_there_too(name: str, value: dict[str, Any]) -> None:
    method = name.partition(".")[2]
    owner = swell.Image if method.startswith("from_") else slim()
    with pytest.raises(swell.Error, match=f"{name}\\({next(iter(value))}="):
        steps(getattr(owner, method)("x", **value))
