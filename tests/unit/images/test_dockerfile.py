"""The Dockerfile of people with a registry and the recipe of `make images` start the same thing in the same way."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mailfleet_images.recipes import ENTRYPOINT, ENVIRONMENT, PYTHON_VERSION, RECIPES, SUITE, USER, Recipe

ROOT = Path(__file__).parents[3]


@dataclass
class Stage:
    """What one FROM of a Dockerfile ends as."""

    image: str
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: str = ""
    copied: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)


def stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by name; each begins as the one it is FROM."""
    found: dict[str, Stage] = {}
    stage = Stage("")
    text = re.sub(r"(?m)^\s*#.*\n", "", text).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        match word:
            case "FROM":
                origin, _, name = rest.partition(" AS ")
                before = found.get(origin, Stage(origin))
                stage = Stage(before.image, dict(before.environment), dict(before.labels), before.user)
                stage.entrypoint, stage.command, stage.health = before.entrypoint, before.command, before.health
                found[name] = stage
            case "ENV":
                stage.environment |= dict(each.split("=", 1) for each in shlex.split(rest))
            case "LABEL":
                stage.labels |= dict(each.split("=", 1) for each in shlex.split(rest))
            case "USER":
                stage.user = rest
            case "ENTRYPOINT":
                stage.entrypoint = tuple(json.loads(rest))
            case "CMD":
                stage.command = tuple(json.loads(rest))
            case "HEALTHCHECK":
                stage.health = rest
            case "COPY":
                stage.copied.append(rest)
            case "RUN":
                stage.ran.append(rest)
    return found


@pytest.fixture(scope="module")
def dockerfile() -> dict[str, Stage]:
    """Its stages."""
    return stages((ROOT / "Dockerfile").read_text())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_both_recipes_start_alike(dockerfile: dict[str, Stage], recipe: Recipe) -> None:
    """User, environment, entry point, command and title; and the packages that are laid in."""
    stage = dockerfile[recipe.name]
    assert stage.user == USER
    assert stage.environment == ENVIRONMENT
    assert stage.entrypoint == ENTRYPOINT
    assert stage.command == recipe.command
    built = dockerfile[f"build-{recipe.name}"]
    assert built.ran == [f"scripts/image-packages.sh /app/lib {' '.join(recipe.packages)}"]
    assert stage.copied == [f"--from=build-{recipe.name} /app/lib /app/lib"]
    ours = recipe.labels("${VERSION}", "${REVISION}", "")
    assert stage.labels == ours


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_an_image_says_whether_it_is_well_and_is_not_root(dockerfile: dict[str, Stage], recipe: Recipe) -> None:
    """Docker asks the health page; the user is a number, which Kubernetes can check."""
    stage = dockerfile[recipe.name]
    assert "http://127.0.0.1:8080/healthz" in stage.health
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage.user)


def test_both_are_the_same_debian_and_python() -> None:
    """The tag of the official image has both."""
    assert f"ARG PYTHON_IMAGE=python:{PYTHON_VERSION}-slim-{SUITE}\n" in (ROOT / "Dockerfile").read_text()


def test_the_recipe_installs_with_the_uv_of_the_checkout() -> None:
    """Another uv could read the lock file in another way."""
    version = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())
    assert version
    assert f"ARG UV_VERSION={version.group(1)}\n" in (ROOT / "Dockerfile").read_text()


def test_the_build_sees_all_that_it_copies() -> None:
    """A folder that .dockerignore hides could not be copied."""
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    assert {name for names in copied for name in names if not name.startswith(("--", "/"))} <= shown
