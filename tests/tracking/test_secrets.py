"""Secrets are known by their names and never recorded."""

import logging

import pytest

from neurolm.tracking.secrets import is_secret, without_secrets


@pytest.mark.parametrize(
    "name",
    [
        "hf_token",
        "tracking.password",
        "AWS_SECRET_ACCESS_KEY",
        "aws.secretKey",
        "apikey",
        "data.privacy_key",
        "storage.secrets.user",
        "api_tokens",
    ],
)
def test_secrets_are_known_by_name(name: str) -> None:
    assert is_secret(name, "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer.hidden_size", 64),
        ("num_tokens", 1024),
        ("sep_token", 50257),
        ("keyboard", "x"),
        ("tokenizer.checkpoint", "a"),
        ("data.tokens", "bfloat16"),
        ("data.token_store", "runs/token_store"),
    ],
)
def test_settings_about_tokens_are_no_secrets(name: str, value: object) -> None:
    assert not is_secret(name, value)


def test_secrets_inside_values_go_too(caplog: pytest.LogCaptureFixture) -> None:
    values = {
        "server": {"password": "p", "port": 1},
        "stores": [{"key": "k", "name": "a"}],
        "uri": "https://me:pw@host/x",
    }
    with caplog.at_level(logging.INFO):
        kept = without_secrets(values)
    assert kept == {"server": {"port": 1}, "stores": [{"name": "a"}], "uri": "https://***@host/x"}
    assert "password" in caplog.text
