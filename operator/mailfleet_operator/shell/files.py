"""Files that the operator reads: the sender's template, and the resource types that are part of this package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from mailfleet_core.settings import SettingsError
from mailfleet_operator.decisions.senders import TemplateError, checked_template


def template(path: str) -> dict[str, Any]:
    """The PodTemplateSpec of a sender. Raises SettingsError."""
    try:
        return checked_template(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"[operator] template: {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, TemplateError) as error:
        raise SettingsError(f"[operator] template: {path}: {error}") from error


def resource_types() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions: in an installed package beside the code, in the repository in the chart."""
    inside = Path(str(files("mailfleet_operator"))) / "crds"
    folder = inside if inside.is_dir() else Path(__file__).parents[3] / "charts/mailfleet/charts/crds/crds"
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]
    if not found:
        raise SettingsError(f"there are no resource types in {folder}")
    return found
