"""What Airflow's provider discovery reads. It must not import Airflow: Airflow reads it while it starts."""

from __future__ import annotations

from typing import Any

from airflow_cd import __version__

_NAME = "Continuous Delivery"


def _modules(*names: str) -> list[dict[str, Any]]:
    return [{"integration-name": _NAME, "python-modules": [f"airflow_cd.{name}" for name in names]}]


def get_provider_info() -> dict[str, Any]:
    """Return the provider description (schema: ``airflow/provider_info.schema.json``)."""
    return {
        "package-name": "airflow-provider-cd",
        "name": _NAME,
        "description": "Continuous delivery and continuous deployment as Airflow DAGs.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _NAME,
                "external-doc-url": "https://pypi.org/project/airflow-provider-cd/",
                "tags": ["software"],
            }
        ],
        "operators": _modules(
            *("operators.build", "operators.test", "operators.package", "operators.deploy"),
            *("operators.rollback", "operators.manual_rollback", "operators.drift", "operators.scale_down"),
            *("trains.select", "trains.report", "clusters.operators", "retention.operators"),
        ),
        "sensors": _modules("sensors.approval", "sensors.health", "trains.departure"),
        "hooks": _modules("hooks.git", "hooks.signing"),
        "triggers": _modules("triggers.git_heads", "triggers.health", "triggers.monitor", "triggers.rollout"),
        "extra-links": [
            "airflow_cd.links.release.CommitLink",
            "airflow_cd.links.release.ApprovalLink",
            "airflow_cd.links.release.ServiceLink",
        ],
        "connection-types": [_git_connection(), _signing_key_connection()],
        "config": {"cd": _config()},
        "cli": ["airflow_cd.cli.commands.get_cd_commands"],
    }


def _git_connection() -> dict[str, Any]:
    return {
        "connection-type": "cd_git",
        "hook-class-name": "airflow_cd.hooks.git.GitHook",
        "hook-name": "Git repository (CD)",
        "ui-field-behaviour": {
            "hidden-fields": ["port", "schema", "extra", "host"],
            "relabeling": {"login": "User name", "password": "Password or access token"},
            "placeholders": {"login": "git"},
        },
        "conn-fields": {
            "private_key": {
                "label": "SSH private key",
                "description": "Used for ssh:// and git@host:path repositories.",
                "schema": {"type": ["string", "null"], "format": "password"},
            },
            "known_hosts": {
                "label": "SSH known hosts",
                "description": "Lines of a known_hosts file; a host that is not listed is refused.",
                "schema": {"type": ["string", "null"], "format": "multiline"},
            },
        },
    }


def _signing_key_connection() -> dict[str, Any]:
    return {
        "connection-type": "cd_signing_key",
        "hook-class-name": "airflow_cd.hooks.signing.SigningKeyHook",
        "hook-name": "Signing key (CD)",
        "ui-field-behaviour": {
            "hidden-fields": ["host", "port", "schema", "login", "password", "extra"],
            "relabeling": {},
        },
        "conn-fields": {
            "private_key": {
                "label": "Private key",
                "description": "Ed25519 or ECDSA P-256, PEM (PKCS#8), without a passphrase. "
                "Leave it empty where signatures are only verified.",
                "schema": {"type": ["string", "null"], "format": "password"},
            },
            "public_key": {
                "label": "Public key",
                "description": "PEM. Needed only without the private key.",
                "schema": {"type": ["string", "null"], "format": "multiline"},
            },
        },
    }


def _config() -> dict[str, Any]:
    def option(description: str, type_: str, default: str | None, example: str | None) -> dict[str, Any]:
        return {
            "description": description,
            "version_added": "0.1.0",
            "type": type_,
            "default": default,
            "example": example,
        }

    return {
        "description": "Continuous delivery (airflow-provider-cd).",
        "options": {
            "data_dir": option(
                "Folder for git caches, scratch space and the local target.",
                "string",
                "{AIRFLOW_HOME}/cd",
                "/var/lib/airflow-cd",
            ),
            "artifacts": option(
                "Artifact store of services that name none; empty means the folder artifacts in data_dir.",
                "string",
                "",
                "file:///var/lib/airflow-cd/artifacts",
            ),
            "machine_users": option(
                "Users of Airflow that are programs, with commas between them: a run that one of them "
                "triggers lifts no hold, and its answer is no approval, unless `approvers` list it.",
                "string",
                "",
                "ci-bot, backstage",
            ),
            "kubeconfig_commands": option(
                "Whether the kubeconfig of a connection can run programs on workers (exec, auth-provider).",
                "boolean",
                "False",
                None,
            ),
            "build_group": option(
                "Group of the operating system whose members run build and test commands of services without "
                "a runner, each for one task at a time; empty means that they run as the worker's own user.",
                "string",
                "",
                "cd-build",
            ),
            "command_log_bytes": option(
                "How much of the output of a build or test command goes to the task's log.",
                "integer",
                "20971520",
                None,
            ),
            "source_max_files": option(
                "How many files a service's folder may hold at a commit.", "integer", "200000", None
            ),
            "source_max_bytes": option(
                "How many bytes the files of a service's folder may have together.",
                "integer",
                "2147483648",
                None,
            ),
            "workspace_max_files": option(
                "How many files and folders a command in a container may leave in its workspace.",
                "integer",
                "2000000",
                None,
            ),
            "workspace_max_bytes": option(
                "How many bytes a command in a container may leave in its workspace.",
                "integer",
                "21474836480",
                None,
            ),
            "allowed_addresses": option(
                "Link-local and metadata addresses that health checks, metrics and registries may ask all "
                "the same: addresses or networks, with commas between them.",
                "string",
                "",
                "169.254.20.10/32",
            ),
        },
    }
