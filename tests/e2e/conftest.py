"""Fixtures of the end-to-end tests. Each scene is searched for secrets before it is closed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from e2e_scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def open_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Scene]]:
    """Makes scenes for the tests of one module.

    When they are done, every log file, row, message, request and result is searched for every
    secret; a find is an error of the module.
    """
    scenes: list[Scene] = []
    with contextlib.ExitStack() as closing:

        def open_one(**arguments: Any) -> Scene:
            folder = tmp_path_factory.mktemp("scene")
            scenes.append(closing.enter_context(Scene(folder, **arguments)))
            return scenes[-1]

        yield open_one
        leaks = [leak for scene in scenes for leak in scene.leaks()]
    assert not leaks, f"a secret can be read in: {leaks}"
