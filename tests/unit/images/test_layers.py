"""What goes into which layer of wheels."""

from __future__ import annotations

from mailfleet_images.__main__ import besides


def test_a_package_that_one_image_needs_on_more_pythons_is_in_the_layer_of_that_image() -> None:
    """The line in the common layer installs nothing on a Python that it leaves out."""
    common = {"idna": "idna==3", "typing-extensions": "typing-extensions==4 ; python_full_version < '3.13'"}
    wanted = {
        "idna": "idna==3",
        "typing-extensions": "typing-extensions==4 ; python_full_version < '3.15'",
        "kopf": "kopf==1",
    }
    assert besides(common, wanted) == {name: wanted[name] for name in ("typing-extensions", "kopf")}
