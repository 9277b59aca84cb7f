import json
from pathlib import Path

from tests.agents import myagent, write_agent

READ = "secretsmanager:GetSecretValue"


async def test_the_policy_allows_exactly_what_the_file_names(tmp_path: Path) -> None:
    write_agent(
        tmp_path,
        system_prompt="${secret:team/b} ${HOME} $${secret:team/none}",
        model={"name": "m", "api_key": "${secret:team/a#key}", "endpoint": "http://${secret:team/a#host}/v1"},
        server={"api_keys": ["${secret:team/b}", "${secret:arn:aws:secretsmanager:eu-west-1:1:secret:c-AbCdEf}"]},
    )
    flags = ["--region", "eu-west-2", "--account", "123456789012"]
    printed = await myagent("iam-policy", *flags, cwd=tmp_path)
    assert (printed.status, printed.err) == (0, "")
    ours = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:"
    assert json.loads(printed.out) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ReadSecrets",
                "Effect": "Allow",
                "Action": READ,
                "Resource": [
                    f"{ours}team/a-??????",
                    f"{ours}team/b-??????",
                    "arn:aws:secretsmanager:eu-west-1:1:secret:c-AbCdEf",
                ],
            },
            {
                "Sid": "ReadSecretsInBatches",
                "Effect": "Allow",
                "Action": "secretsmanager:BatchGetSecretValue",
                "Resource": "*",
            },
        ],
    }


async def test_one_secret_needs_no_batches_and_a_key_of_the_customers_is_for_these_secrets_only(tmp_path: Path) -> None:
    write_agent(tmp_path, system_prompt="${secret:team/a}")
    key = "arn:aws:kms:eu-west-2:1:key/abc"
    printed = await myagent("iam-policy", "--region", "cn-north-1", "--kms-key", key, cwd=tmp_path)
    [read, decrypt] = json.loads(printed.out)["Statement"]
    assert read["Resource"] == ["arn:aws-cn:secretsmanager:cn-north-1:*:secret:team/a-??????"]
    assert (decrypt["Action"], decrypt["Resource"]) == ("kms:Decrypt", [key])
    assert decrypt["Condition"] == {"StringLike": {"kms:ViaService": "secretsmanager.cn-north-1.amazonaws.com"}}


async def test_a_folder_of_agents_that_run_in_one_process_gets_one_policy(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_agent(tmp_path / name, system_prompt=f"${{secret:team/{name}}} ${{secret:team/both}}")
    printed = await myagent("iam-policy", "--config", tmp_path, cwd=tmp_path)
    prefix = "arn:aws:secretsmanager:*:*:secret:team"
    [read, _] = json.loads(printed.out)["Statement"]
    assert read["Resource"] == [f"{prefix}/{name}-??????" for name in ("a", "both", "b")]


async def test_a_file_without_secrets_needs_no_policy_and_a_broken_one_is_said(tmp_path: Path) -> None:
    write_agent(tmp_path)
    printed = await myagent("iam-policy", cwd=tmp_path)
    assert (printed.status, json.loads(printed.out)["Statement"]) == (0, [])
    assert printed.err == "agent.yaml refers to no secret, so the agent needs no permission\n"
    (tmp_path / "agent.yaml").write_text("name: [")
    broken = await myagent("iam-policy", cwd=tmp_path)
    assert (broken.status, broken.out) == (2, "")
    assert "agent.yaml:1: is not valid YAML" in broken.err
