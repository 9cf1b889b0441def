"""The Modzy client with this app's credentials: what happens when a key is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from modzy_relay.errors import SecretUnavailableError
from modzy_relay.identity import BlobVersion, input_item_key
from modzy_relay.lifecycle import State, Submission
from modzy_relay.modzy_api import NotFoundError, UnauthorizedError
from modzy_relay.modzy_platform import InputNameNeededError, ModzyPlatform
from sandbox.modzy_server import ModzyServer

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD, NEW = "prefix.old-secret", "prefix.new-secret"
STORAGE_KEY = "c3RvcmFnZSBrZXkgb2YgdGhlIHVwbG9hZHM="


class FakeSecrets:
    """Stands for ``VaultSecrets``: what is cached, and what the vault has by now."""

    def __init__(self) -> None:
        self.cached = {"api": OLD, "storage": STORAGE_KEY}
        self.in_vault = dict(self.cached)
        self.refreshed = 0

    def get(self, name: str) -> str:
        """The cached value."""
        if name not in self.cached:
            raise SecretUnavailableError(f"there is no secret {name}")
        return self.cached[name]

    def refresh(self, name: str) -> str:
        """The vault's value, cached from now on."""
        self.refreshed += 1
        self.cached[name] = self.in_vault[name]
        return self.cached[name]


@pytest.fixture
def server() -> Iterator[ModzyServer]:
    """A Modzy that knows the old key."""
    with ModzyServer({}, [OLD]) as server:
        yield server


@pytest.fixture
def secrets() -> FakeSecrets:
    """The app's secrets."""
    return FakeSecrets()


@pytest.fixture
def platform(server: ModzyServer, secrets: FakeSecrets) -> Iterator[ModzyPlatform]:
    """The client under test."""
    platform = ModzyPlatform(
        server.url,
        secrets,  # type: ignore[arg-type]  # as far as it is used
        api_key_secret="api",
        storage_key_secret="storage",
        submit_timeout=5,
    )
    yield platform
    platform.close()


def a_submission() -> Submission:
    """A claimed row."""
    now = datetime(2026, 11, 23, 8, tzinfo=UTC)
    version = BlobVersion("uploadaccount", "uploads", "a/b c.txt", "0x1", now)
    return Submission(
        version=version,
        size=5,
        state=State.SUBMITTING,
        created_at=now,
        give_up_at=now + timedelta(days=7),
        item_key=input_item_key(version.path, version.key),
        model="ed542963de",
        model_version="0.0.27",
        explain=True,
        timeout=60,
    )


def posts(server: ModzyServer) -> list[object]:
    """Outcomes of all submissions that reached Modzy."""
    return [request.outcome for request in server.requests if request.method == "POST"]


def test_a_submission_says_all_that_its_row_says(
    platform: ModzyPlatform, server: ModzyServer
) -> None:
    """Model, input, path and options travel as they are; the storage key is the vault's."""
    row = a_submission()
    job = platform.submit(row, "input.txt", lambda: None)
    (accepted,) = server.jobs.all()
    assert accepted.identifier == job.job_identifier
    place = {"container": "uploads", "filePath": "a/b c.txt"}
    assert accepted.sources == {row.item_key: {"input.txt": place}}
    assert (accepted.explain, accepted.timeout) == (True, timedelta(seconds=60))
    assert accepted.account == "uploadaccount"
    assert STORAGE_KEY not in json.dumps([request.to_json() for request in server.requests])


def test_a_refused_key_is_read_again_and_the_request_repeated_once(
    platform: ModzyPlatform, server: ModzyServer, secrets: FakeSecrets
) -> None:
    """A rotation costs one refused request and no upload."""
    server.set_api_keys([NEW])
    secrets.in_vault["api"] = NEW
    platform.submit(a_submission(), "input.txt", lambda: None)
    assert posts(server) == ["401", "200"]
    assert len(server.jobs.all()) == 1
    assert secrets.refreshed == 1


def test_before_send_guards_the_repeated_request_too(
    platform: ModzyPlatform, server: ModzyServer, secrets: FakeSecrets
) -> None:
    """No request of a claim that has ended meanwhile is sent."""
    server.set_api_keys([NEW])
    secrets.in_vault["api"] = NEW
    asked: list[int] = []
    platform.submit(a_submission(), "input.txt", lambda: asked.append(1))
    assert len(asked) == 2


def test_an_unchanged_key_is_alarmed_and_not_tried_again(
    platform: ModzyPlatform, server: ModzyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the secret to check; Modzy is not asked twice with the same key."""
    server.set_api_keys([NEW])
    with pytest.raises(UnauthorizedError):
        platform.submit(a_submission(), "input.txt", lambda: None)
    assert posts(server) == ["401"]
    (record,) = [one for one in caplog.records if one.name == "modzy_relay"]
    assert record.message.startswith("modzy.unauthorized ")
    assert "check secret api and the key's roles and quota" in record.message
    assert OLD.partition(".")[2] not in record.message


def test_a_new_key_that_is_refused_as_well_is_alarmed(
    platform: ModzyPlatform,
    server: ModzyServer,
    secrets: FakeSecrets,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two keys are tried, and no third time."""
    server.set_api_keys(["another.key"])
    secrets.in_vault["api"] = NEW
    with pytest.raises(UnauthorizedError):
        platform.submit(a_submission(), "input.txt", lambda: None)
    assert posts(server) == ["401", "401"]
    assert "modzy.unauthorized" in caplog.text


def test_without_the_storage_key_nothing_is_sent(
    platform: ModzyPlatform, server: ModzyServer, secrets: FakeSecrets
) -> None:
    """A job that could not fetch its input is not paid for."""
    del secrets.cached["storage"]
    with pytest.raises(SecretUnavailableError):
        platform.submit(a_submission(), "input.txt", lambda: None)
    assert server.requests == []


def test_the_only_input_is_asked_for_once(platform: ModzyPlatform, server: ModzyServer) -> None:
    """The second upload to a model costs no question."""
    names = {platform.input_name("ed542963de", "0.0.27") for _ in range(3)}
    assert names == {"input.txt"}
    assert len(server.requests) == 1


def test_a_model_with_several_inputs_needs_a_setting(platform: ModzyPlatform) -> None:
    """The error lists the inputs and names the setting."""
    with pytest.raises(InputNameNeededError, match=r"document\.txt, image.*MODZY_INPUT_NAME"):
        platform.input_name("2b9a6e04d1", "2.1.0")


def test_a_failed_question_is_asked_again(platform: ModzyPlatform, server: ModzyServer) -> None:
    """Only answers are remembered."""
    with pytest.raises(NotFoundError):
        platform.input_name("ed542963de", "7.7.7")
    server.set_api_keys([OLD])
    with pytest.raises(NotFoundError):
        platform.input_name("ed542963de", "7.7.7")
    assert len(server.requests) == 2


def test_what_modzy_does_not_know_is_none(platform: ModzyPlatform) -> None:
    """An unknown job is an answer, for details and for results."""
    assert platform.job("00000000-0000-0000-0000-000000000000") is None
    assert platform.results("00000000-0000-0000-0000-000000000000") is None
