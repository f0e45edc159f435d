from __future__ import annotations

from lerobot_ray.tracking.redact import redacted, redacted_words


def test_values_named_as_secrets_are_masked_and_nothing_else():
    config = {
        "hub": {"token": "hf_abc", "tokenizer_name": "gpt2", "api_key": None},
        "policy": {"tokenizer_max_length": 48, "n_tokens": 8},
        "envs": [{"password": "x"}],
        "WANDB_API_KEY": "k",
    }
    assert redacted(config) == {
        "hub": {"token": "***", "tokenizer_name": "gpt2", "api_key": None},
        "policy": {"tokenizer_max_length": 48, "n_tokens": 8},
        "envs": [{"password": "***"}],
        "WANDB_API_KEY": "***",
    }


def test_credentials_in_addresses_are_masked():
    assert redacted("https://me:pw@host:5000/x") == "https://***@host:5000/x"
    assert redacted("postgresql+psycopg2://me:pw@db/mlflow") == "postgresql+psycopg2://***@db/mlflow"
    signed = "s3://bucket/x?X-Amz-Credential=abc&part=1&X-Amz-Signature=def"
    assert redacted(signed) == "s3://bucket/x?X-Amz-Credential=***&part=1&X-Amz-Signature=***"
    assert redacted("sqlite:////tmp/mlflow.db") == "sqlite:////tmp/mlflow.db"
    assert redacted("user@example.com") == "user@example.com"


def test_secret_flags_of_a_command_line_are_masked():
    words = ["train.py", "--hub.token=hf_abc", "--token", "hf_def", "--policy.type=act", "--uri=http://a:b@c"]
    assert redacted_words(words) == [
        "train.py",
        "--hub.token=***",
        "--token",
        "***",
        "--policy.type=act",
        "--uri=http://***@c",
    ]
